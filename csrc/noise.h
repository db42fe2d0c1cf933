// From random words to noise, shared by every device.
//
// A uniform is u = (high 2^24 + low + 1/2) 2^-56, from a word `high` and the last 24 bits of the next
// word of its block, `low`. It is never 0 or 1, and both ends are equally fine: what is computed from
// it sees min(u, 1 - u) to the full precision of its type. Words are shared between neighbours only
// where the first word says that 32 bits are not enough.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "philox.h"

namespace pgest {

template <class To, class From>
PGEST_HD_INLINE To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  memcpy(&to, &from, sizeof(to));
  return to;
}

// a / b; where a device divides in many instructions, to 2 units in the last place in few. b is
// neither huge nor tiny.
PGEST_HD_INLINE float quotient(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fdividef(a, b);
#else
  return a / b;
#endif
}
PGEST_HD_INLINE double quotient(double a, double b) { return a / b; }

// log(1 + f) for f in [1/sqrt(2) - 1, sqrt(2) - 1], to 2 units in the last place: 2 atanh(f / (2 + f))
// by its series, the first term that is missing below rounding.
PGEST_HD_INLINE float log1p_near_zero(float f) {
  const float s = quotient(f, 2 + f);
  const float q = s * s;
  const float p = 1.f / 3 + q * (1.f / 5 + q * (1.f / 7 + q * (1.f / 9)));
  return 2 * s + 2 * s * q * p;
}

PGEST_HD_INLINE double log1p_near_zero(double f) {
  const double s = f / (2 + f);
  const double q = s * s;
  double p = 1. / 21;
  p = p * q + 1. / 19;
  p = p * q + 1. / 17;
  p = p * q + 1. / 15;
  p = p * q + 1. / 13;
  p = p * q + 1. / 11;
  p = p * q + 1. / 9;
  p = p * q + 1. / 7;
  p = p * q + 1. / 5;
  p = p * q + 1. / 3;
  return 2 * s + 2 * s * q * p;
}

// x = 2^exponent (1 + fraction) with the fraction in the range above, for normal x > 0. NaN and
// infinities are not seen.
template <class A>
struct Split {
  A exponent, fraction;
};

PGEST_HD_INLINE Split<float> split(float x) {
  const int32_t i = bits_as<int32_t>(x);
  const int32_t e = (i - 0x3f3504f3) >> 23;
  return {static_cast<float>(e), bits_as<float>(i - e * 0x800000) - 1};
}

// The exponent becomes a double by its bits: AVX2 converts no 64-bit integer.
PGEST_HD_INLINE Split<double> split(double x) {
  const uint64_t i = bits_as<uint64_t>(x);
  const uint64_t biased = (i + (0x3ff0000000000000u - 0x3fe6a09e667f3bcdu)) >> 52;
  const uint64_t e = biased << 52;
  const double exponent = bits_as<double>(biased | 0x4330000000000000u) - 4503599627370496.0 - 1023;
  return {exponent, bits_as<double>(i - e + 0x3ff0000000000000u) - 1};
}

template <class A>
PGEST_HD_INLINE A log_of(Split<A> x) {
  return x.exponent * A(0.69314718055994530942) + log1p_near_zero(x.fraction);
}

// log q for a normal q; 0, which q log q makes harmless, for others.
template <class A>
PGEST_HD_INLINE A log_or_zero(A q) {
  return q >= std::numeric_limits<A>::min() ? log_of(split(q)) : q * 0;
}

// A uniform by the half of (0, 1) that it is in and what is between it and that half's end.
template <class A>
struct NearEnd {
  int32_t upper;  // all ones or 0
  A end;          // min(u, 1 - u), in (0, 1/2]
};

template <class A>
PGEST_HD_INLINE NearEnd<A> near_end(uint32_t high, uint32_t low) {
  // In the upper half 1 - u is what counts; its bits are those of u, flipped.
  const int32_t upper = static_cast<int32_t>(high) >> 31;
  const int32_t h = static_cast<int32_t>(high) ^ upper;
  const int32_t l = (static_cast<int32_t>(low) ^ upper) & 0xffffff;
  return {upper, static_cast<A>(h) * A(0x1p-32) + (static_cast<A>(l) * A(0x1p-56) + A(0x1p-57))};
}

// Exponential noise -log(1 - u), in [2^-57, 39.6]: relative accuracy at both ends.
template <class A>
PGEST_HD_INLINE A exponential_noise(uint32_t high, uint32_t low) {
  const NearEnd<A> u = near_end<A>(high, low);
  const Split<A> far = split(u.end);
  // In the lower half 1 - u is in [1/2, 1), and u, not it, has all the bits.
  const bool near = u.end < A(0.2928932188134525);
  const A exponent = near ? A(0) : A(-1);
  const A fraction = near ? -u.end : 1 - 2 * u.end;
  return -log_of(Split<A>{u.upper ? far.exponent : exponent, u.upper ? far.fraction : fraction});
}

// The same from a uniform of the caller's, in [0, 1); the smallest positive number stands for 0.
template <class A>
PGEST_HD_INLINE A exponential_of(A uniform) {
  constexpr A tiny = std::numeric_limits<A>::min();
  return -log_of(split(uniform > tiny ? uniform : tiny));
}

// Gumbel noise, in [-3.7, 39.6] from words and in [-4.5, 16.7] (float) from a caller's uniforms.
template <class A>
PGEST_HD_INLINE A gumbel_of(A exponential) {
  return -log_of(split(exponential));
}

}  // namespace pgest
