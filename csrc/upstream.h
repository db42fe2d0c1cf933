// What the full backward of token_stats is given for a row, on every device: the state that the forward
// saved and the upstream gradients.
#pragma once

#include "kernels/token_stats.h"
#include "pair.h"

namespace pgest {

PGEST_HD PairState saved_state(const TokenStatsBackward& args, int64_t r) {
  const double* at = args.state + r;
  const int64_t n = args.in.num_rows;
  PairState state{{at[0], at[n], at[2 * n]}};
  if (args.grad[kKl] || args.grad[kReverseKl] || args.grad[kValue]) {
    state.q_pivot = at[3 * n];
    state.q_log_s0 = at[4 * n];
    state.kl = at[5 * n];
    state.reverse_kl = at[6 * n];
    state.value = at[7 * n];
  }
  return state;
}

// A is the type of the statistics. Without w, which is a sum over the tokens chosen.
template <class A>
PGEST_HD PairUpstream upstream(const TokenStatsBackward& args, int64_t r) {
  const auto at = [&](Output output) {
    return args.grad[output] ? double{static_cast<const A*>(args.grad[output])[r]} : 0;
  };
  PairUpstream up;
  up.entropy = at(kEntropy);
  up.lse = at(kLse);
  up.kl = at(kKl);
  up.reverse_kl = at(kReverseKl);
  up.value = at(kValue);
  return up;
}

}  // namespace pgest
