// What the kernels beyond the plain one read: a row of values, of the reference policy's logits and of
// rewards, a block at a time.
#pragma once

#include <vector>

#include "../kernels/token_stats.h"
#include "../pair.h"
#include "chosen.h"
#include "values.h"

namespace pgest {

// Bits by which a logit may exceed the pivot before the pivot is raised. 2^d stays as exact as d, and
// one pass over a block gives its sums and its maximum; few rows rise by so much after their first.
constexpr double kSlackBits = 8;

// Elements in flight at once: short, because a block is summed in its own type, whose error grows with
// what a lane has added up.
constexpr int64_t kPairBlock = 512;

template <class T>
struct PairRow {
  using A = Acc<T>;
  const T* logits;
  const T* reference;
  const void* values;
  bool wide_values;
  bool transformed;
  Transform<A> by;

  PairRow(const TokenStatsInput& in, int64_t row)
      : logits(static_cast<const T*>(in.logits) + in.rows.offset(row)),
        reference(static_cast<const T*>(in.reference_logits)),
        values(in.value_tokens ? nullptr : in.values),
        wide_values(in.values_dtype != in.dtype),
        transformed(in.transformed()),
        by(in, row) {
    if (reference) reference += in.reference_rows.offset(row);
    if (values) {
      const int64_t offset = in.value_rows.offset(row);
      values = wide_values ? static_cast<const void*>(static_cast<const A*>(values) + offset)
                           : static_cast<const T*>(values) + offset;
    }
  }

  PGEST_INLINE const A* block(int64_t at, int64_t n, A* buffer) const {
    return transformed ? load_values<true>(logits + at, at, n, buffer, by)
                       : load_block(logits + at, n, buffer);
  }
  // z + bias alone.
  PGEST_INLINE const A* unshaped_block(int64_t at, int64_t n, A* buffer) const {
    Transform<A> added = by;
    added.softcap = 0;
    added.threshold = -std::numeric_limits<A>::infinity();
    return load_values<true>(logits + at, at, n, buffer, added);
  }
  PGEST_INLINE const A* reference_block(int64_t at, int64_t n, A* buffer) const {
    return reference ? load_block(reference + at, n, buffer) : nullptr;
  }
  PGEST_INLINE const A* values_block(int64_t at, int64_t n, A* buffer) const {
    return wide_values ? static_cast<const A*>(values) + at
                       : load_block(static_cast<const T*>(values) + at, n, buffer);
  }
  PGEST_INLINE bool excludes() const {
    return by.threshold != -std::numeric_limits<A>::infinity();
  }
  PGEST_INLINE A token(int64_t token) const { return value_of(logits, token, by); }
};

// The first of the row's tokens and value_tokens that is outside the vocabulary.
PGEST_INLINE Refusal refuse_tokens(const TokenStatsInput& in, int64_t row, int64_t num_samples) {
  for (int64_t s = 0; s < num_samples; ++s) {
    const int64_t token = in.tokens[s * in.num_rows + row];
    if (token < 0 || token >= in.rows.vocab) return {Refusal::token, row, s};
  }
  for (int64_t k = 0; k < in.num_values; ++k) {
    const int64_t token = in.value_tokens[row * in.num_values + k];
    if (token < 0 || token >= in.rows.vocab) return {Refusal::value_token, row, k};
  }
  return {};
}

// p_k r_k of one of the row's value_tokens; of an impossible one 0, whatever r_k.
template <class T>
PGEST_INLINE double value_term(const TokenStatsInput& in, const PairRow<T>& row, int64_t at,
                               const RowState& state, double temperature) {
  const double v = row.token(in.value_tokens[at]);
  if (v == -std::numeric_limits<double>::infinity()) return 0;
  return std::exp(token_logp(v, state, temperature)) * static_cast<const Acc<T>*>(in.values)[at];
}

}  // namespace pgest
