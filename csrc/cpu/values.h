// From a block of logits to the values v whose softmax is taken: conversion, bias, softcap,
// threshold. What LogitRows calls v; excluded tokens and impossible ones are -inf.
#pragma once

#include <limits>

#include "simd.h"

namespace pgest {

// How the values of one row come from its logits. An op that is given none of it reads the logits
// as they are (kTransform false), without a pass of its own.
template <class A>
struct Transform {
  const A* bias;
  A softcap, inverse_softcap;
  A threshold;

  Transform(const LogitRows& in, int64_t row)
      : bias(static_cast<const A*>(in.bias)),
        softcap(static_cast<A>(in.softcap)),
        inverse_softcap(in.softcap != 0 ? static_cast<A>(1 / in.softcap) : 0),
        threshold(in.threshold ? static_cast<A>(in.threshold[row])
                               : -std::numeric_limits<A>::infinity()) {}
};

// tanh to relative accuracy: a rational function near 0 (Moshier's Cephes), else by exp(-2|x|),
// whose quotient would cancel there. NaN stays NaN.
template <class A>
PGEST_INLINE A tanh_fast(A x) {
  const A z = x * x;
  A p = A(-9.64399179425052238628e-1);
  p = p * z + A(-9.92877231001918586564e1);
  p = p * z + A(-1.61468768441708447952e3);
  A q = z + A(1.12811678491632931402e2);
  q = q * z + A(2.23548839060100448583e3);
  q = q * z + A(4.84406305325125486048e3);
  const A near = x + x * z * (p / q);
  const A magnitude = x < 0 ? -x : x;
  const A bits = magnitude * A(-2.885390081777926815);
  const A t = exp2_fast(clamp_bits(bits, sizeof(A) == 4 ? A(-126) : A(-1022)));
  const A ratio = (1 - t) / (1 + t);
  const A far = x < 0 ? -ratio : ratio;
  return magnitude < A(0.625) ? near : far;
}

// softcap * tanh(x / softcap); infinite logits are not squashed, so that -inf stays impossible.
template <class A>
PGEST_INLINE A squash(A x, A softcap) {
  const A squashed = softcap * tanh_fast(x / softcap);  // divided: one rounding less
  const bool infinite = x - x != 0 && x == x;
  return infinite ? x : squashed;
}

// The values of a block, in `buffer` where they are not the logits themselves. `at` is the block's
// place in the row.
template <bool kTransform, class T>
PGEST_INLINE const typename Accumulate<T>::type* load_values(
    const T* block, int64_t at, int64_t n, typename Accumulate<T>::type* buffer,
    const Transform<typename Accumulate<T>::type>& by) {
  using A = typename Accumulate<T>::type;
  if constexpr (!kTransform) return load_block(block, n, buffer);
  if (by.bias) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) buffer[i] = value(block[i]) + by.bias[at + i];
  } else {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) buffer[i] = value(block[i]);
  }
  if (by.softcap != 0) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) buffer[i] = squash(buffer[i], by.softcap);
  }
  if (by.threshold != -std::numeric_limits<A>::infinity()) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i)
      buffer[i] = buffer[i] < by.threshold ? -std::numeric_limits<A>::infinity() : buffer[i];
  }
  return buffer;
}

// The value of one token, to the bit what `load_values` gives it in its block.
template <class T>
PGEST_INLINE typename Accumulate<T>::type value_of(
    const T* row, int64_t token, const Transform<typename Accumulate<T>::type>& by) {
  typename Accumulate<T>::type one;
  return *load_values<true>(row + token, token, 1, &one, by);
}

}  // namespace pgest
