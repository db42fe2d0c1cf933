// The tokens that were chosen in a row, with the gradients of their log-probabilities.
#pragma once

#include "../kernels/token_stats.h"
#include "simd.h"

namespace pgest {

template <class T>
using Acc = typename Accumulate<T>::type;

// The row's weights by chosen token.
template <class A>
struct Chosen {
  const TokenStatsInput& in;
  const A* grad_logp;
  int64_t row;

  PGEST_INLINE int64_t count() const { return grad_logp ? in.num_samples : 0; }
  PGEST_INLINE int64_t token(int64_t s) const { return in.tokens[s * in.num_rows + row]; }
  PGEST_INLINE double weight(int64_t s) const { return grad_logp[s * in.num_rows + row]; }
  PGEST_INLINE bool silent() const {
    for (int64_t s = 0; s < count(); ++s)
      if (weight(s) != 0) return false;
    return true;
  }
};

}  // namespace pgest
