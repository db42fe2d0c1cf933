// The mathematics of one row of logits, shared by every device.
//
// A row z [V] with temperature T has u = z / T, p = softmax(u), lse = log sum_j exp(u_j).
// Sums are kept in base 2 and relative to a pivot (the largest logit seen so far), so that
// no exponential overflows and partial rows can be merged in any order.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "host_device.h"

namespace pgest {

constexpr double kLog2E = 1.4426950408889634074;
constexpr double kLn2 = 0.69314718055994530942;

// Temperatures for which log2(e) / T is a normal number of the type of the sums: beyond them all tokens
// of a row would be equal, impossible ones too, or none but the largest finite.
template <class Acc>
PGEST_HD bool fits(double temperature) {
  return sizeof(Acc) == 4 ? temperature >= 1e-38 && temperature <= 1e38
                          : temperature >= 1e-308 && temperature <= 1e307;
}

// Sums over a part of a row, with d_j = (z_j - pivot) * log2(e) / T in bits.
struct RowSums {
  double pivot = -std::numeric_limits<double>::infinity();
  double s0 = 0;  // sum 2^d
  double s1 = 0;  // sum 2^d d
};

// sum 2^d x, given as `sum`, where d falls by -shift and x grows by `by`; `s0` is sum 2^d. What
// vanishes does so with what was infinite in it, but not with its NaN.
template <class A>
PGEST_HD A moved(A sum, A s0, A shift, A by) {
  const A scale = exp2(shift);
  if (s0 == 0 || scale == 0) return sum != sum ? sum : 0;
  return (sum + s0 * by) * scale;
}

// The same sums relative to a higher pivot.
PGEST_HD RowSums rebase(const RowSums& a, double pivot, double bits_per_logit) {
  if (a.s0 == 0 || a.pivot == pivot) return {pivot, a.s0, a.s1};
  const double shift = (a.pivot - pivot) * bits_per_logit;
  const double scale = exp2(shift);
  // The old part vanishes, but not its NaN, and 0 * -inf must not make one.
  if (scale == 0) return {pivot, a.s0 * 0, a.s1 * 0};
  return {pivot, a.s0 * scale, (a.s1 + a.s0 * shift) * scale};
}

// The sums of two disjoint parts of a row.
PGEST_HD RowSums merge(const RowSums& a, const RowSums& b, double bits_per_logit) {
  const double pivot = a.pivot > b.pivot ? a.pivot : b.pivot;
  const RowSums x = rebase(a, pivot, bits_per_logit);
  const RowSums y = rebase(b, pivot, bits_per_logit);
  return {pivot, x.s0 + y.s0, x.s1 + y.s1};
}

// What the backward keeps of a row. lse = pivot / T + log_s0 is kept as its two parts: next to a
// large pivot (a row masked with the lowest finite number, say) the sum would lose log_s0.
struct RowState {
  double pivot;    // the largest logit
  double log_s0;   // log sum exp((z - pivot) / T), in nats
  double entropy;  // -sum p log p, in nats
};

// A row that is all -inf has lse = -inf and NaN entropy; a NaN sum makes both NaN.
PGEST_HD RowState finish(const RowSums& sums) {
  const double log_s0 = log(sums.s0);
  return {sums.pivot, log_s0, log_s0 - kLn2 * (sums.s1 / sums.s0)};
}

PGEST_HD double lse_of(const RowState& state, double temperature) {
  return state.pivot / temperature + state.log_s0;
}

// log p of one token, -inf for an impossible one.
PGEST_HD double token_logp(double z, const RowState& state, double temperature) {
  return (z - state.pivot) / temperature - state.log_s0;
}

// Upstream gradients of one row: w is their sum over the tokens chosen in it.
struct RowUpstream {
  double w = 0;
  double entropy = 0;
  double lse = 0;
};

// Every vocabulary-level gradient of the row has the form
//   g_j = [chosen weights at j] / T + p_j (slope * log2 p_j + base),
// with c_j = -entropy * log p_j, cbar = w - lse + entropy * H, slope = -entropy ln2 / T and
// base = -cbar / T. `bits` gives log2 p_j = (z_j - pivot) * bits + offset: subtracting before
// scaling keeps fp32 accurate however large the logits are.
template <class Acc>
struct RowGradient {
  Acc pivot, bits, offset, slope, base;
  Acc center;  // E[log2 p] where the entropy is known: moments about it do not cancel
};

template <class Acc>
PGEST_HD RowGradient<Acc> gradient(const RowState& state, const RowUpstream& up,
                                   double temperature) {
  RowGradient<Acc> g;
  g.pivot = static_cast<Acc>(state.pivot);
  g.bits = static_cast<Acc>(kLog2E / temperature);
  g.offset = static_cast<Acc>(-state.log_s0 * kLog2E);
  const double with_entropy = up.entropy == 0 ? 0 : up.entropy * state.entropy;
  g.slope = static_cast<Acc>(-up.entropy * kLn2 / temperature);
  g.base = static_cast<Acc>(-(up.w - up.lse + with_entropy) / temperature);
  g.center = static_cast<Acc>(-state.entropy / kLn2);
  return g;
}

// Sums over a row that the gradient for T needs, with d_j = log2 p_j - center.
struct RowMoments {
  double center = 0;
  double first = 0;   // sum p d
  double second = 0;  // sum p d^2
};

// One chosen token's w v_y, with v = (z - pivot) / T. An impossible token's logit is no function of
// T: its u counts as 0.
PGEST_HD double temperature_of_token(double weight, double z, double pivot, double temperature) {
  const bool impossible = z == -std::numeric_limits<double>::infinity();
  return weight * ((impossible ? 0 : z) - pivot) / temperature;
}

// dL/dT = -(1/T) [ sum_s w_s (u_ys - E[u]) + g_lse E[u] - g_H Var[u] ], of_tokens = sum_s w_s v_ys.
PGEST_HD double temperature_gradient(double of_tokens, const RowUpstream& up, const RowState& state,
                                     const RowMoments& moments, double temperature) {
  const double mean = state.log_s0 + kLn2 * (moments.center + moments.first);  // E[v]
  const double variance = kLn2 * kLn2 * (moments.second - moments.first * moments.first);
  const double by_lse = up.lse == 0 ? 0 : up.lse * (mean + state.pivot / temperature);
  return -(of_tokens - up.w * mean + by_lse - up.entropy * variance) / temperature;
}

}  // namespace pgest
