// The mathematics of one bit b with logit z, P(b = 1) = sigmoid(z), shared by every device.
//
// All is said by |z|, the probability r of the less likely value and the mismatch m of b with the
// likely one (z > 0: 1 - b, else b), so that nothing cancels and an infinite logit is a certain bit:
//
//   log p(b) = -softplus(-|z|) - m |z|,   H = softplus(-|z|) + r |z|
//   d log p / dz = b - P(b = 1) = +-(r - m),   dH / dz = -z r (1 - r)
#pragma once

#include "noise.h"

namespace pgest {

// r, from e = exp(-|z|).
template <class A>
PGEST_HD_INLINE A rare_of(A e) {
  return quotient(e, 1 + e);
}

// softplus(-|z|) = log(1 + e) with e = exp(-|z|) in [0, 1]; relative accuracy.
template <class A>
PGEST_HD_INLINE A certainty_cost(A e) {
  const bool small = e < A(0.4142135623730951);
  const A fraction = small ? e : (e - 1) / 2;
  return log_of(Split<A>{small ? A(0) : A(1), fraction});
}

template <class A>
PGEST_HD_INLINE A mismatch(A z, A bit) {
  return z > 0 ? 1 - bit : bit;
}

// x |z|, where 0 of an infinity is 0.
template <class A>
PGEST_HD_INLINE A of_magnitude(A x, A magnitude) {
  return x == 0 ? 0 : x * magnitude;
}

// b - P(b = 1) or a weighted sum of such, from r - m.
template <class A>
PGEST_HD_INLINE A signed_by(A z, A difference) {
  return z > 0 ? difference : -difference;
}

template <class A>
PGEST_HD_INLINE A entropy_slope(A z, A rare) {
  return -of_magnitude(rare * (1 - rare), z);
}

// A bit from random words (see noise.h): 1 where u < P(b = 1). Compared is the end of u that is near
// the less likely value, where the uniform is fine. `mirror` (all ones or 0) draws from 1 - u.
template <class A>
PGEST_HD_INLINE bool draw_bit(A z, A rare, uint32_t high, uint32_t low, int32_t mirror) {
  const int32_t flip = mirror ^ (z > 0 ? -1 : 0);
  const int32_t h = static_cast<int32_t>(high) ^ flip;
  const int32_t l = (static_cast<int32_t>(low) ^ flip) & 0xffffff;
  const A u = static_cast<A>(h) * A(0x1p-32) + (static_cast<A>(l) * A(0x1p-56) + A(0x1p-57));
  const bool event = h >= 0 && u < rare;  // negative: the upper half, which is no rare value
  return event != (z > 0);
}

}  // namespace pgest
