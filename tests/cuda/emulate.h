// CUDA's language on the host, for tests on a machine without a GPU: the kernels' own sources are compiled
// with this in place of the toolkit. Blocks run one after another; the threads of a block are fibers that
// meet at barriers and in shuffles as they would on the device, in an order that changes from launch to
// launch. What must not happen there stops here: a barrier that not all reach, a shuffle with a lane that
// is not in it.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "geometry.h"
#include "../kernels/common.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__
#define __grid_constant__
#define __launch_bounds__(...)
#define __shared__ static

namespace pgest::emulated {

struct Index {
  int x = 0;
};
extern Index thread, block, threads, blocks;

void sync_threads();
void sync_lanes(unsigned mask);
// The word of lane `from`, after every lane of the mask has given its own.
uint64_t exchange(unsigned mask, uint64_t word, int from);

using Body = void (*)(void (*kernel)(), const void* args);
const char* run(Body body, void (*kernel)(), const Geometry& g, const void* args);

// The refusal of the first row since the last call.
Refusal take_refusal();
[[noreturn]] void refuse(const Refusal& refusal);

float value_of_bfloat16(uint16_t bits);
float value_of_half(uint16_t bits);
uint16_t bfloat16_of(float x);
uint16_t half_of(float x);

}  // namespace pgest::emulated

#define threadIdx pgest::emulated::thread
#define blockIdx pgest::emulated::block
#define blockDim pgest::emulated::threads
#define gridDim pgest::emulated::blocks

inline void __syncthreads() { pgest::emulated::sync_threads(); }
inline void __syncwarp(unsigned mask = ~0u) { pgest::emulated::sync_lanes(mask); }

// Lanes of a shuffle count within parts of `width` of a warp.
template <class X>
X __shfl_sync(unsigned mask, X x, int from, int width = 32) {
  static_assert(sizeof(X) <= sizeof(uint64_t));
  uint64_t word = 0;
  std::memcpy(&word, &x, sizeof(X));
  const int first = threadIdx.x % 32 / width * width;
  word = pgest::emulated::exchange(mask, word, first + from);
  std::memcpy(&x, &word, sizeof(X));
  return x;
}
template <class X>
X __shfl_xor_sync(unsigned mask, X x, int offset) {
  return __shfl_sync(mask, x, (threadIdx.x % 32) ^ offset);
}
template <class X>
X __shfl_up_sync(unsigned mask, X x, unsigned offset, int width = 32) {
  const int lane = threadIdx.x % width, from = lane - static_cast<int>(offset);
  return __shfl_sync(mask, x, from < 0 ? lane : from, width);
}
inline unsigned __ballot_sync(unsigned mask, bool vote) {
  unsigned all = 0;
  for (int lane = 0; lane < 32; ++lane)
    if (mask >> lane & 1u) all |= static_cast<unsigned>(__shfl_sync(mask, static_cast<int>(vote), lane)) << lane;
  return all;
}
inline int __ffs(unsigned x) { return __builtin_ffs(static_cast<int>(x)); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __clzll(long long x) { return x == 0 ? 64 : __builtin_clzll(static_cast<uint64_t>(x)); }
// No other fiber runs meanwhile.
inline unsigned atomicAdd(unsigned* sum, unsigned x) {
  const unsigned before = *sum;
  *sum += x;
  return before;
}

namespace pgest::cuda {

[[noreturn]] inline void refuse(Refusal::Kind kind, int64_t row, int64_t sample) { emulated::refuse({kind, row, sample}); }

// As rounded as the device's: results below the smallest normal number are 0.
inline float exp2_fast(float x) {
  const float y = std::exp2(x);
  return y < 0x1p-126f ? 0 : y;
}
inline double exp2_fast(double x) { return std::exp2(x); }
inline float log2_fast(float x) { return std::log2(x); }

template <class A>
A reciprocal_fast(A x) {
  return 1 / x;
}

inline void prefetch(const void*) {}

// The compiler may not see that the product goes into a sum.
template <class A>
A product(A a, A b) {
  const volatile A exact = a * b;
  return exact;
}

template <class Args>
const char* launch(void (*kernel)(Args), const Geometry& g, const Args& args, void*) {
  const auto body = [](void (*erased)(), const void* of) {
    reinterpret_cast<void (*)(Args)>(erased)(*static_cast<const Args*>(of));
  };
  return emulated::run(body, reinterpret_cast<void (*)()>(kernel), g, &args);
}

}  // namespace pgest::cuda
