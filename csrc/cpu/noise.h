// Gumbel noise, a block of a row at a time.
#pragma once

#include <algorithm>

#include "../noise.h"
#include "simd.h"

namespace pgest {

// Elements whose words are held at once: with the block that they serve they stay in the first-level
// cache.
constexpr int64_t kNoiseBlock = 4 * kNoiseGroup;

// The words of elements [at, at + kNoiseBlock) of a row, each with the next one of its counter.
void noise_block(uint64_t seed, int64_t row, int64_t at, uint32_t* high, uint32_t* low);

// Where the noise of a call comes from: a seed, uniforms of the caller's, or nowhere.
template <class A>
struct NoiseSource {
  const int64_t* seed = nullptr;
  const A* uniforms = nullptr;  // contiguous over rows

  explicit operator bool() const { return seed || uniforms; }
};

// Adds Gumbel noise to `x`, n <= kBlock elements at `at` (a multiple of kBlock) of a row. False if a
// uniform is outside [0, 1).
template <class A>
PGEST_INLINE bool add_gumbel(const NoiseSource<A>& noise, int64_t row, int64_t vocab, int64_t at,
                             int64_t n, A* x) {
  if (noise.uniforms) {
    const A* u = noise.uniforms + row * vocab + at;
    int32_t bad = 0;
#pragma omp simd reduction(| : bad)
    for (int64_t i = 0; i < n; ++i) {
      bad |= !(u[i] >= 0 && u[i] < 1);
      x[i] += gumbel_of(exponential_of(u[i]));
    }
    return !bad;
  }
  uint32_t high[kNoiseBlock], low[kNoiseBlock];
  for (int64_t begin = 0; begin < n; begin += kNoiseBlock) {
    noise_block(static_cast<uint64_t>(*noise.seed), row, at + begin, high, low);
    const int64_t m = std::min(kNoiseBlock, n - begin);
    A* y = x + begin;
#pragma omp simd
    for (int64_t i = 0; i < m; ++i) y[i] += gumbel_of(exponential_noise<A>(high[i], low[i]));
  }
  return true;
}

}  // namespace pgest
