// What the CPU loops share: exp2, half-type blocks.
#pragma once

#include <bit>
#include <cstdint>

#include "../clones.h"
#include "../kernels/common.h"

#define PGEST_INLINE inline __attribute__((always_inline))
// A function that is not inlined into a clone would be compiled for the oldest processor.
#define PGEST_INLINE_LAMBDA __attribute__((always_inline))

namespace pgest {

// Elements in flight at once: a block and its fp32 copy stay in the first-level cache.
constexpr int64_t kBlock = 2048;

struct BFloat16 {
  uint16_t bits;
};
struct Half {
  uint16_t bits;
};

// What a storage type is computed in.
template <class T>
struct Accumulate {
  using type = float;
};
template <>
struct Accumulate<double> {
  using type = double;
};

// The lower end of exp2_fast's range, in bits. It is made to depend on `bits` (log2(e) / T > 0):
// a constant would let the compiler see that 2^lowest is 0 and turn one maximum into three masks.
template <class A>
PGEST_INLINE A lowest_bits(A bits) {
  return bits < 0 ? bits : (sizeof(A) == 4 ? A(-127) : A(-1023));
}

// NaN passes.
template <class A>
PGEST_INLINE A clamp_bits(A x, A lowest) {
  return lowest > x ? lowest : x;
}

// 2^x for clamped x <= 1: exactly 0 at the lower end, so that -inf logits weigh exactly nothing,
// also in products with x. NaN stays NaN. Adding a magic constant rounds to an integer and leaves
// it, plus the exponent's bias, in the low bits, from which the scale is one shift. Degree 5,
// minimax with p(0) = 1: relative error 1.1e-7.
PGEST_INLINE float exp2_fast(float x) {
  constexpr float magic = 12582912.0f + 127.0f;  // 1.5 * 2^23
  const float shifted = x + magic;
  const float f = x - (shifted - magic);
  float p = 1.326472731307149e-03f;
  p = p * f + 9.671512991189957e-03f;
  p = p * f + 5.550733581185341e-02f;
  p = p * f + 2.402224242687225e-01f;
  p = p * f + 6.931470036506653e-01f;
  p = p * f + 1.0f;
  return p * std::bit_cast<float>(std::bit_cast<uint32_t>(shifted) << 23);
}

PGEST_INLINE double exp2_fast(double x) {
  constexpr double magic = 6755399441055744.0 + 1023.0;  // 1.5 * 2^52
  const double shifted = x + magic;
  const double f = (x - (shifted - magic)) * 0.69314718055994530942;
  double p = 1.0 / 6227020800.0;  // Taylor, degree 13: below rounding for |f| <= ln2 / 2
  p = p * f + 1.0 / 479001600.0;
  p = p * f + 1.0 / 39916800.0;
  p = p * f + 1.0 / 3628800.0;
  p = p * f + 1.0 / 362880.0;
  p = p * f + 1.0 / 40320.0;
  p = p * f + 1.0 / 5040.0;
  p = p * f + 1.0 / 720.0;
  p = p * f + 1.0 / 120.0;
  p = p * f + 1.0 / 24.0;
  p = p * f + 1.0 / 6.0;
  p = p * f + 0.5;
  p = p * f + 1.0;
  p = p * f + 1.0;
  return p * std::bit_cast<double>(std::bit_cast<uint64_t>(shifted) << 52);
}

PGEST_INLINE float to_float(BFloat16 v) {
  return std::bit_cast<float>(static_cast<uint32_t>(v.bits) << 16);
}

// Integer arithmetic only, because the compiler does not vectorise _Float16 conversions.
PGEST_INLINE float to_float(Half v) {
  const uint32_t magnitude = v.bits & 0x7fffu;
  const uint32_t sign = static_cast<uint32_t>(v.bits & 0x8000u) << 16;
  const uint32_t finite = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude << 13) * 0x1p112f);
  const uint32_t special = (magnitude << 13) | 0x7f800000u;
  return std::bit_cast<float>(sign | (magnitude >= 0x7c00u ? special : finite));
}

// To nearest even. No test for NaN: those that come from half types or from arithmetic have zeros
// in the bits that go, so that rounding cannot carry them over.
PGEST_INLINE void round_to(BFloat16& out, float v) {
  const uint32_t bits = std::bit_cast<uint32_t>(v);
  out.bits = static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

PGEST_INLINE void round_to(Half& out, float v) {
  const uint32_t bits = std::bit_cast<uint32_t>(v);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t a = bits & 0x7fffffffu;
  const uint32_t normal = (a - 0x38000000u + 0xfffu + ((a >> 13) & 1u)) >> 13;
  const uint32_t subnormal =
      std::bit_cast<uint32_t>(std::bit_cast<float>(a) + 0.5f) - 0x3f000000u;
  const uint32_t special = a > 0x7f800000u ? 0x7e00u : 0x7c00u;
  uint32_t h = a < 0x38800000u ? subnormal : normal;
  h = a >= 0x47800000u ? special : h;
  out.bits = static_cast<uint16_t>(sign | h);
}

PGEST_INLINE float value(float v) { return v; }
PGEST_INLINE double value(double v) { return v; }
PGEST_INLINE float value(BFloat16 v) { return to_float(v); }
PGEST_INLINE float value(Half v) { return to_float(v); }

PGEST_INLINE void round_to(float& out, float v) { out = v; }
PGEST_INLINE void round_to(double& out, double v) { out = v; }

// Half types are computed in fp32 copies of a block; others where they are. One loop that also
// converts would save the copies, but the compiler vectorises mixed widths badly.
template <class T>
constexpr bool kConverts = sizeof(T) == 2;

template <class T, class A>
PGEST_INLINE auto block_of(T* block, A* buffer) {
  if constexpr (kConverts<T>) {
    return buffer;
  } else {
    return block;
  }
}

// Asks for memory that the next loop reads while this one computes: a block of a half type is a
// page, and the processor's own prefetching starts anew in each.
template <class T>
PGEST_INLINE void prefetch(const T* block, int64_t n) {
#if defined(__GNUC__)
  for (int64_t i = 0; i < n; i += 64 / static_cast<int64_t>(sizeof(T))) __builtin_prefetch(block + i);
#endif
}

template <class T>
PGEST_INLINE const typename Accumulate<T>::type* load_block(const T* block, int64_t n,
                                                            typename Accumulate<T>::type* buffer) {
  if constexpr (kConverts<T>) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) buffer[i] = value(block[i]);
  }
  return block_of(block, buffer);
}

template <class T>
PGEST_INLINE void store_block(T* out, const typename Accumulate<T>::type* block, int64_t n) {
  if constexpr (kConverts<T>) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) round_to(out[i], block[i]);
  }
}

}  // namespace pgest
