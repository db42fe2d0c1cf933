// What the kernels beyond the plain one read: a row of values, of the reference policy's logits and of
// rewards.
#pragma once

#include "../kernels/token_stats.h"
#include "../pair.h"
#include "team.h"
#include "values.h"

namespace pgest::cuda {

// These kernels are too large to have one for the shortest rows.
constexpr int kFewestLanes = 8;

// A chunk of the logits and of what the reference policy has there.
template <class T>
struct FetchedPair : Fetched<T> {
  Fetched<T> reference;
};

template <class T>
struct PairRow {
  using A = Acc<T>;
  Values<T> policy;
  const T* reference;
  const void* values;  // dense rewards
  bool wide_values;    // in the dtype of the statistics

  __device__ PairRow(const TokenStatsInput& in, int64_t row)
      : policy(in, row),
        reference(static_cast<const T*>(in.reference_logits)),
        values(in.value_tokens ? nullptr : in.values),
        wide_values(in.values_dtype != in.dtype) {
    if (reference) reference += in.reference_rows.offset(row);
    if (values) {
      const int64_t offset = in.value_rows.offset(row);
      values = wide_values ? static_cast<const void*>(static_cast<const A*>(values) + offset)
                           : static_cast<const T*>(values) + offset;
    }
  }

  // Calls f(place, length, chunk) for each of the thread's chunks; the reference's are under way with the
  // logits' where kReference.
  template <class Team, bool kReference, class F>
  __device__ __forceinline__ void chunks(int64_t vocab, const F& f) const {
    if constexpr (kReference) {
      for_chunks_of<Team>(Both{policy.logits, reference}, vocab, f);
    } else {
      for_chunks<Team>(policy.logits, vocab, f);
    }
  }

  __device__ __forceinline__ void load_reference(int64_t, int, A* y, const FetchedPair<T>& chunk) const {
    chunk.reference.values(y);
  }
  template <class Size>
  __device__ __forceinline__ void load_reference(int64_t at, int n, A* y, const Size& size) const {
    load_beside(reference + at, n, y, -kInfinity<A>, size);
  }
  template <class Size>
  __device__ __forceinline__ void load_rewards(int64_t at, int n, A* r, const Size& size) const {
    if (wide_values) {
      load_beside(static_cast<const A*>(values) + at, n, r, A(0), size);
    } else {
      load_beside(static_cast<const T*>(values) + at, n, r, A(0), size);
    }
  }
  // Asks for the chunk before the others are worked on, so that no registers wait for it.
  __device__ __forceinline__ void prefetch_rewards(int64_t at) const {
    prefetch(static_cast<const char*>(values) + at * (wide_values ? sizeof(A) : sizeof(T)));
  }
  __device__ A reward(int64_t token) const {
    return wide_values ? static_cast<const A*>(values)[token] : value(static_cast<const T*>(values)[token]);
  }

 private:
  struct Both {
    const T *row, *reference;
    __device__ __forceinline__ bool aligned() const { return is_aligned(row) && is_aligned(reference); }
    __device__ __forceinline__ FetchedPair<T> fetch(int64_t at, bool aligned) const {
      FetchedPair<T> pair;
      static_cast<Fetched<T>&>(pair) = cuda::fetch(row + at, aligned);
      pair.reference = cuda::fetch(reference + at, aligned);
      return pair;
    }
  };
};

// A function of its own: offsets are divisions, whose registers no pass should hold.
template <class T>
__device__ __noinline__ PairRow<T> pair_row(const TokenStatsInput& in, int64_t row) {
  return PairRow<T>(in, row);
}

// Refuses the row's tokens and value_tokens that are outside the vocabulary.
template <class Team>
__device__ void refuse_tokens(const TokenStatsInput& in, int64_t row, int64_t num_samples) {
  for (int64_t s = Team::rank(); s < num_samples; s += Team::size()) {
    const int64_t token = in.tokens[s * in.num_rows + row];
    if (token < 0 || token >= in.rows.vocab) refuse(Refusal::token, row, s);
  }
  for (int64_t k = Team::rank(); k < in.num_values; k += Team::size()) {
    const int64_t token = in.value_tokens[row * in.num_values + k];
    if (token < 0 || token >= in.rows.vocab) refuse(Refusal::value_token, row, k);
  }
}

// p_k r_k of one of the row's value_tokens; of an impossible one 0, whatever r_k.
template <class T>
__device__ double value_term(const TokenStatsInput& in, const PairRow<T>& row, int64_t at,
                             const RowState& state, double temperature) {
  const double v = row.policy.of(in.value_tokens[at]);
  if (v == -kInfinity<double>) return 0;
  return exp(token_logp(v, state, temperature)) * static_cast<const Acc<T>*>(in.values)[at];
}

}  // namespace pgest::cuda
