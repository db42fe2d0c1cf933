// The mathematics of a row beside a row of a reference policy q and a row of rewards r, shared by
// every device: exact KL divergences in both directions, the expected reward, and their gradients.
//
// Both policies have the same temperature. log2 p_j = d_j - log2 sum 2^d with d_j = (v_j - pivot) *
// log2(e) / T, and log2 q_j in the same way from d'_j and the reference's own pivot.
#pragma once

#include "row.h"

namespace pgest {

// Sums over a part of both rows. A term whose own probability is 0 counts as 0, and the infinite one
// of a token that the other policy never takes is not in the sums: whether its own probability is 0
// is known only at the end, whatever the order. Kept is the largest such value.
struct PairSums {
  RowSums p;
  RowSums q;
  double kl = 0;          // sum 2^d (d - d')
  double reverse_kl = 0;  // sum 2^d' (d' - d)
  double value = 0;       // sum 2^d r of what is possible
  double p_alone = -std::numeric_limits<double>::infinity();  // largest v_j where q_j = 0
  double q_alone = -std::numeric_limits<double>::infinity();  // largest v'_j where p_j = 0
};

// The same sums relative to higher pivots.
PGEST_HD PairSums rebase(const PairSums& a, double pivot, double q_pivot, double bits_per_logit) {
  if (a.p.pivot == pivot && a.q.pivot == q_pivot) return a;
  const double shift = a.p.pivot == pivot ? 0 : (a.p.pivot - pivot) * bits_per_logit;
  const double q_shift = a.q.pivot == q_pivot ? 0 : (a.q.pivot - q_pivot) * bits_per_logit;
  PairSums b = a;
  b.p = rebase(a.p, pivot, bits_per_logit);
  b.q = rebase(a.q, q_pivot, bits_per_logit);
  b.kl = moved(a.kl, a.p.s0, shift, shift - q_shift);
  b.reverse_kl = moved(a.reverse_kl, a.q.s0, q_shift, q_shift - shift);
  b.value = a.value * exp2(shift);  // 0 * inf is NaN: see `reward_of`
  return b;
}

// The expected reward of summed p r. A reward that is not finite, of a token that is not impossible,
// makes it NaN: where its p vanishes depends on the order of the sums, so inf could not be told from 0.
PGEST_HD double reward_of(double sum) { return sum - sum + sum; }

// What the backward keeps of both rows, in nats.
struct PairState {
  RowState p;
  double q_pivot = 0, q_log_s0 = 0;
  double kl = 0, reverse_kl = 0, value = 0;
};

// The state but for the value, which needs no reference. Infinite terms are in the sums by now.
PGEST_HD PairState finish(const PairSums& sums) {
  PairState state{finish(sums.p)};
  state.q_pivot = sums.q.pivot;
  state.q_log_s0 = log(sums.q.s0);
  const double normalisers = state.q_log_s0 - state.p.log_s0;
  state.kl = kLn2 * (sums.kl / sums.p.s0) + normalisers;
  state.reverse_kl = kLn2 * (sums.reverse_kl / sums.q.s0) - normalisers;
  return state;
}

struct PairUpstream : RowUpstream {
  double kl = 0;
  double reverse_kl = 0;
  double value = 0;
};

// The gradient of row.h, with c_j = -entropy * log p_j + kl * (log p_j - log q_j) + value * r_j, and
// reverse_kl * (p_j - q_j), whose first half only shifts cbar.
template <class Acc>
struct PairGradient {
  RowGradient<Acc> p;
  Acc q_pivot, q_offset;
  Acc kl, reverse_kl, value;
};

template <class Acc>
PGEST_HD PairGradient<Acc> gradient(const PairState& state, const PairUpstream& up,
                                    double temperature) {
  RowUpstream shifted = up;  // as an upstream gradient of lse shifts cbar, and nothing else
  shifted.lse += up.reverse_kl;
  if (up.kl != 0) shifted.lse -= up.kl * state.kl;
  if (up.value != 0) shifted.lse -= up.value * state.value;
  PairGradient<Acc> g;
  g.p = gradient<Acc>(state.p, shifted, temperature);
  g.q_pivot = static_cast<Acc>(state.q_pivot);
  g.q_offset = static_cast<Acc>(-state.q_log_s0 * kLog2E);
  g.kl = static_cast<Acc>(up.kl * kLn2 / temperature);
  g.reverse_kl = static_cast<Acc>(up.reverse_kl / temperature);
  g.value = static_cast<Acc>(up.value / temperature);
  return g;
}

// Sums that the gradient for T needs of the gradients g for u and g' for the reference's, both without
// the chosen tokens' own terms and divided by T.
struct PairMoments {
  double center = 0;
  double of_p = 0;  // sum g (log2 p - center)
  double of_q = 0;  // sum g' (log2 q - center)
};

// dL/dT = -(1/T) [ sum_s w_s u_ys + T sum_j g_j u_j + T sum_j g'_j u'_j ], where g sums to
// (g_lse - w) / T and g' to 0.
PGEST_HD double temperature_gradient(double of_tokens, const RowUpstream& up, const RowState& state,
                                     const PairMoments& moments, double temperature) {
  const double center = state.log_s0 + kLn2 * moments.center;  // as (z - pivot) / T
  const double by_lse = up.lse == 0 ? 0 : up.lse * (center + state.pivot / temperature);
  const double spread = kLn2 * temperature * (moments.of_p + moments.of_q);
  return -(of_tokens + spread - up.w * center + by_lse) / temperature;
}

}  // namespace pgest
