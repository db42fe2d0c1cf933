// What the kernels use of CUDA beyond its language: a launch, a refusal and fast powers and logarithms
// of two. For tests without a GPU, PGEST_EMULATE takes all of it, and the language, from an emulator.
#pragma once

#if defined(PGEST_EMULATE)
#include "emulate.h"
#else

#undef NDEBUG  // a refusal is an assertion
#include <cuda_runtime.h>

#include <cassert>

#include "../kernels/common.h"
#include "geometry.h"

namespace pgest::cuda {

// A value that the host would have refused by name. It cannot be told from here without waiting for
// the device, so that it ends the kernel as torch's own device-side assertions do. That it does not return
// spares registers: nothing has to be kept over the call.
[[noreturn]] __device__ __forceinline__ void refuse(Refusal::Kind kind, int64_t, int64_t) {
  assert(kind != Refusal::token && "pgest: tokens must be in [0, vocabulary)");
  assert(kind != Refusal::value_token && "pgest: value_tokens must be in [0, vocabulary)");
  assert(kind != Refusal::temperature && "pgest: temperature must be positive and finite");
  assert(kind != Refusal::noise && "pgest: noise must be uniforms in [0, 1)");
  assert(kind != Refusal::row_values && "pgest: logits must have a possible token in each row");
  assert(kind != Refusal::possible && "pgest: num_samples must be at most the possible tokens");
  assert(kind != Refusal::one_hot && "pgest: sample must be one-hot");
  assert(kind != Refusal::bit && "pgest: bits must be from 0 to 1");
  assert(kind != Refusal::nan && "pgest: logits must not be NaN");
  __trap();
}

// 2^x; results below the smallest normal number are 0, as are those of the CPU kernels. NaN stays NaN.
__device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ __forceinline__ double exp2_fast(double x) { return exp2(x); }

// 1 / x, a bit less exact than the quotient. Of normal numbers.
__device__ __forceinline__ float reciprocal_fast(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ __forceinline__ double reciprocal_fast(double x) { return 1 / x; }

// a * b, rounded before whatever is added to it.
__device__ __forceinline__ float product(float a, float b) { return __fmul_rn(a, b); }
__device__ __forceinline__ double product(double a, double b) { return __dmul_rn(a, b); }

// Asks for memory that is read soon.
__device__ __forceinline__ void prefetch(const void* p) { asm volatile("prefetch.global.L2 [%0];" ::"l"(p)); }

// log2(x) of a normal x > 0: to 2^-22 for x in [1/2, 2], elsewhere to 2 units in the last place.
__device__ __forceinline__ float log2_fast(float x) {
  float y;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// What went wrong, or null. `stream` is a cudaStream_t.
template <class Args>
const char* launch(void (*kernel)(Args), const Geometry& g, const Args& args, void* stream) {
  if (g.blocks == 0) return nullptr;
  void* parameters[] = {const_cast<Args*>(&args)};
  const cudaError_t error = cudaLaunchKernel(
      reinterpret_cast<const void*>(kernel), dim3(static_cast<unsigned>(g.blocks)),
      dim3(static_cast<unsigned>(g.threads)), parameters, 0, static_cast<cudaStream_t>(stream));
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace pgest::cuda

#endif
