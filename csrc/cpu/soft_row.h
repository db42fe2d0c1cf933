// softmax((z + g) / T) of one row on the CPU, g its Gumbel noise, and products with its Jacobian.
#pragma once

#include <algorithm>
#include <vector>

#include "../jacobian.h"
#include "noise.h"

namespace pgest {

template <class T>
using Acc = typename Accumulate<T>::type;

PGEST_INLINE double temperature_of(const LogitRows& in, int64_t row) {
  return in.temperature ? in.temperature[row] : 1.0;
}

// max(x), NaN ignored, -inf of nothing.
template <class A>
PGEST_INLINE A block_max(const A* x, int64_t n) {
  const int64_t h = n / 2;
  A m0 = -std::numeric_limits<A>::infinity(), m1 = m0;
#pragma omp simd reduction(max : m0, m1)
  for (int64_t i = 0; i < h; ++i) {
    m0 = x[i] > m0 ? x[i] : m0;
    m1 = x[h + i] > m1 ? x[h + i] : m1;
  }
  return std::max({m0, m1, n > 2 * h ? x[n - 1] : m0});
}

// A block of z + g as x + pivot, where the pivot is the largest x's place on the scale of z: noise is
// added to differences of logits, so that it keeps its precision however large they are.
template <class A>
struct NoisyBlock {
  double pivot;  // -inf for a block of impossible tokens
  A largest;     // of x; finite, also where there is none
  bool noise_fits;
};

template <class T>
PGEST_INLINE NoisyBlock<Acc<T>> noisy_block(const T* row, const NoiseSource<Acc<T>>& noise, int64_t r,
                                            int64_t vocab, int64_t at, int64_t n, Acc<T>* x) {
  using A = Acc<T>;
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) x[i] = value(row[at + i]);
  const A top = block_max(x, n);
  const A subtract = top == -std::numeric_limits<A>::infinity() ? 0 : top;
  if (!noise) {
    return {static_cast<double>(top), subtract, true};
  }
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) x[i] -= subtract;
  const bool fits = add_gumbel(noise, r, vocab, at, n, x);
  const A largest = block_max(x, n);
  const bool none = largest == -std::numeric_limits<A>::infinity();
  return {static_cast<double>(subtract) + largest, none ? 0 : largest, fits};
}

// 2^((x - largest) bits) in place, and its sum.
template <class A>
PGEST_INLINE double exponentiate(A* x, int64_t n, A largest, A bits) {
  const A lowest = lowest_bits(bits);
  A sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) {
    x[i] = exp2_fast(clamp_bits((x[i] - largest) * bits, lowest));
    sum += x[i];
  }
  return sum;
}

// The softmax of row r into `out` [vocab]: each block relative to its own largest entry, then all to
// the row's. False if the noise is refused. `pivots` is scratch.
template <class T>
PGEST_INLINE bool soft_row(const T* row, const NoiseSource<Acc<T>>& noise, int64_t r, int64_t vocab,
                           double temperature, Acc<T>* out, std::vector<double>& pivots) {
  using A = Acc<T>;
  const double bits = kLog2E / temperature;
  RowSums sums;
  pivots.clear();
  for (int64_t at = 0; at < vocab; at += kBlock) {
    const int64_t n = std::min(kBlock, vocab - at);
    const NoisyBlock<A> block = noisy_block(row, noise, r, vocab, at, n, out + at);
    if (!block.noise_fits) return false;
    const double sum = exponentiate(out + at, n, block.largest, static_cast<A>(bits));
    sums = merge(sums, {block.pivot, sum, 0}, bits);
    pivots.push_back(block.pivot);
  }
  for (int64_t at = 0, k = 0; at < vocab; at += kBlock, ++k) {
    const int64_t n = std::min(kBlock, vocab - at);
    const bool none = pivots[k] == -std::numeric_limits<double>::infinity();
    const double relative = none ? 0 : exp2((pivots[k] - sums.pivot) * bits);
    const A scale = static_cast<A>(relative / sums.s0);  // NaN for a row that has no possible token
    A* y = out + at;
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) y[i] *= scale;
  }
  return true;
}

// Whether a row's upstream gradient is 0: such a row is not read, so that a loss may mask it
// afterwards (no 0 * NaN).
template <class T>
PGEST_INLINE bool silent(const T* grad, int64_t n) {
  return std::all_of(grad, grad + n, [](T g) { return value(g) == 0; });
}

}  // namespace pgest
