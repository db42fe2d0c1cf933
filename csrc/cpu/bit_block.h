// A block of the logits of bits, on the CPU.
#pragma once

#include <algorithm>

#include "../bits.h"
#include "../kernels/bits.h"
#include "../row.h"
#include "simd.h"

namespace pgest {

template <class T>
using Acc = typename Accumulate<T>::type;

// A bit as it is stored: a byte, or a number of the logits' type.
PGEST_INLINE float bit_value(uint8_t bit) { return bit; }

template <class T>
PGEST_INLINE Acc<T> bit_value(T bit) {
  return value(bit);
}

// exp(-|z|); NaN passes.
template <class A>
PGEST_INLINE A decay(A z) {
  const A magnitude = z < 0 ? -z : z;
  const A bits = magnitude * A(-kLog2E);
  return exp2_fast(clamp_bits(bits, sizeof(A) == 4 ? A(-127) : A(-1023)));
}

// The logits of a block, their magnitudes and the probabilities of their less likely values.
template <class A>
struct Block {
  A z[kBitBlock], magnitude[kBitBlock], rare[kBitBlock];

  template <class T>
  PGEST_INLINE void load(const T* logits, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) {
      z[i] = value(logits[i]);
      magnitude[i] = z[i] < 0 ? -z[i] : z[i];
      rare[i] = rare_of(decay(z[i]));
    }
  }
};

// Calls `run` with a value of the type that `dtype` means.
template <class F>
Refusal by_dtype(DType dtype, const F& run) {
  switch (dtype) {
    case DType::f64: return run(double{});
    case DType::f32: return run(float{});
    case DType::bf16: return run(BFloat16{});
    case DType::f16: return run(Half{});
  }
  return {};
}

}  // namespace pgest
