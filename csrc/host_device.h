// How a function says that every device has it.
#pragma once

#if defined(__CUDACC__)
#define PGEST_HD __host__ __device__ inline
#define PGEST_HD_INLINE __host__ __device__ __forceinline__
#else
#define PGEST_HD inline
#define PGEST_HD_INLINE inline __attribute__((always_inline))
#endif
