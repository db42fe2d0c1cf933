// A row of token_stats with all that it can be given and asked for: any subset of the statistics in one
// pass; ranks, which need the tokens' values, and the place of a NaN in one more. What is done once a row
// is in functions of its own, out of the way of the pass's registers.
#pragma once

#include "pair_sums.h"

namespace pgest::cuda {

constexpr int kRanks = 4;  // counted in a pass

template <class Team, bool kReference, class T>
__device__ __forceinline__ PairRunning<Acc<T>> read_row(const TokenStatsForward& args, int64_t r,
                                                        Acc<T> bits) {
  using A = Acc<T>;
  const PairRow<T> row = pair_row<T>(args.in, r);
  const bool reverse = args.out[kReverseKl], rewards = args.out[kValue] && row.values;
  PairRunning<A> mine;
  row.template chunks<Team, kReference>(args.in.rows.vocab, [&](int64_t at, int n, const auto& chunk) {
    A x[kChunk];
    if (rewards) row.prefetch_rewards(at);
    row.policy.load(at, n, x, chunk);
    mine.rise(x, at, bits);
    if constexpr (kReference) {
      A y[kChunk];
      row.load_reference(at, n, y, chunk);
      mine.rise_reference(y, bits);
      if (reverse) {
        mine.template add<true>(x, y, bits);
      } else {
        mine.template add<false>(x, y, bits);
      }
    } else {
      mine.add(x, bits);
    }
    if (rewards) {
      A r[kChunk];
      row.load_rewards(at, n, r, chunk);
      mine.add_rewards(x, r, bits);
    }
  });
  return mine;
}

// The first NaN of a row, as torch.argmax has it.
template <class Team, class T>
__device__ int64_t first_nan(const Values<T>& values, int64_t vocab, int64_t otherwise) {
  int64_t first = Team::rank();
#pragma unroll 1
  while (first < vocab && values.of(first) == values.of(first)) first += Team::size();
  first = smallest_of<Team>(first);
  return first < vocab ? first : otherwise;
}

// The first of the row's largest, which is in the chunk at `at`.
template <class T>
__device__ int64_t first_largest(const Values<T>& values, int64_t vocab, int64_t at, Acc<T> largest) {
  const int64_t last = at + kChunk < vocab ? at + kChunk - 1 : vocab - 1;
  while (at < last && values.of(at) != largest) ++at;
  return at;
}

// How many of the row are larger than the values of kRanks of its tokens, from sample s on. NaN counts as
// larger, so that no token of a NaN row is first.
template <class Team, class T>
__device__ void write_ranks(const TokenStatsForward& args, int64_t r, int64_t s, const Values<T>& values) {
  using A = Acc<T>;
  const TokenStatsInput& in = args.in;
  A of[kRanks];
  int32_t larger[kRanks] = {};
#pragma unroll
  for (int k = 0; k < kRanks; ++k)
    of[k] = s + k < in.num_samples ? values.of(in.tokens[(s + k) * in.num_rows + r]) : A(0);
  for_even_chunks<Team>(in.rows.vocab, [&](int64_t at, int n) {
    A x[kChunk];
    values.load(at, n, x, Partial{});
#pragma unroll
    for (int k = 0; k < kRanks; ++k)
#pragma unroll
      for (int i = 0; i < kChunk; ++i) larger[k] += i < n && !(x[i] <= of[k]);
  });
#pragma unroll
  for (int k = 0; k < kRanks; ++k) {
    if (s + k >= in.num_samples) break;
    const int64_t rank = sum_of<Team>(static_cast<int64_t>(larger[k]));
    if (Team::rank() == 0) args.rank_out[(s + k) * in.num_rows + r] = rank;
  }
}

// Whether a value's probability, relative to that of the largest, is more than 0 in the kernel's type.
template <class A>
__device__ bool possible(double v, double largest, double bits) {
  const A d = (static_cast<A>(v) - static_cast<A>(largest)) * static_cast<A>(bits);
  return v != -kInfinity<double> && exp2_fast(d) != 0;
}

template <bool kReference, class A>
__device__ PairState state_of(PairSums sums, double bits) {
  PairState state{finish(sums.p)};
  if constexpr (kReference) {
    if (possible<A>(sums.p_alone, sums.p.pivot, bits)) sums.kl += kInfinity<double>;
    if (possible<A>(sums.q_alone, sums.q.pivot, bits)) sums.reverse_kl += kInfinity<double>;
    state = finish(sums);
  }
  state.value = reward_of(sums.value) / sums.p.s0;
  return state;
}

// The expected reward of value_tokens; NaN for a row that has no probabilities.
template <class Team, class T>
__device__ double value_of_tokens(const TokenStatsInput& in, int64_t r, const PairRow<T>& row,
                                  const RowState& state, double temperature) {
  double sum = 0;
  for (int64_t k = Team::rank(); k < in.num_values; k += Team::size())
    sum += value_term(in, row, r * in.num_values + k, state, temperature);
  return reward_of(sum_of<Team>(sum) + state.log_s0 * 0);
}

template <class T>
__device__ void put(void* out, int64_t at, double x) {
  if (out) static_cast<Acc<T>*>(out)[at] = static_cast<Acc<T>>(x);
}

// Statistics of one row; those of a masked one are 0.
template <class T>
__device__ void write_row(const TokenStatsForward& args, int64_t r, const PairState& state, double lse,
                          int64_t argmax) {
  put<T>(args.out[kEntropy], r, state.p.entropy);
  put<T>(args.out[kLse], r, lse);
  put<T>(args.out[kKl], r, state.kl);
  put<T>(args.out[kReverseKl], r, state.reverse_kl);
  put<T>(args.out[kValue], r, state.value);
  if (args.argmax_out) args.argmax_out[r] = argmax;
  double* at = args.state_out + r;
  const int64_t n = args.in.num_rows;
  at[0] = state.p.pivot;
  at[n] = state.p.log_s0;
  at[2 * n] = state.p.entropy;
  if (!args.pair()) return;
  at[3 * n] = state.q_pivot;
  at[4 * n] = state.q_log_s0;
  at[5 * n] = state.kl;
  at[6 * n] = state.reverse_kl;
  at[7 * n] = state.value;
}

template <class Team, class T>
__device__ __noinline__ void write_masked(const TokenStatsForward& args, int64_t r) {
  for (int64_t s = Team::rank(); s < args.in.num_samples; s += Team::size()) {
    put<T>(args.out[kLogp], s * args.in.num_rows + r, 0);
    if (args.rank_out) args.rank_out[s * args.in.num_rows + r] = 0;
  }
  if (Team::rank() == 0) write_row<T>(args, r, PairState{}, 0, 0);
}

// Bits a logit of a row that may be read.
template <class Team, class A>
__device__ __noinline__ A checked_bits(const TokenStatsInput& in, int64_t r) {
  refuse_tokens<Team>(in, r, in.num_samples);
  return static_cast<A>(kLog2E / temperature_of<A>(in, r, true));
}

// From the threads' sums to all that is asked for.
template <class Team, bool kReference, class T>
__device__ __noinline__ void finish_row(const TokenStatsForward& args, int64_t r, Acc<T> bits,
                                        const PairRunning<Acc<T>> mine) {
  using A = Acc<T>;
  const TokenStatsInput& in = args.in;
  const double temperature = in.temperature ? in.temperature[r] : 1.0;
  const PairRow<T> row = pair_row<T>(in, r);
  const PairSums sums = merged<Team, kReference>(mine, args, bits);
  int64_t argmax = 0;
  if (args.argmax_out) {
    const A largest = static_cast<A>(sums.p.pivot);
    argmax = smallest_of<Team>(mine.p.highest == largest ? mine.argmax : in.rows.vocab);
    argmax = first_largest(row.policy, in.rows.vocab, argmax, largest);
    if (sums.p.s0 != sums.p.s0) argmax = first_nan<Team>(row.policy, in.rows.vocab, argmax);
  }
  if (args.rank_out)
    for (int64_t s = 0; s < in.num_samples; s += kRanks) write_ranks<Team>(args, r, s, row.policy);
  PairState state = state_of<kReference, A>(sums, bits);
  if (args.out[kValue] && in.value_tokens)
    state.value = value_of_tokens<Team>(in, r, row, state.p, temperature);
  if (args.out[kLogp])
    for (int64_t s = Team::rank(); s < in.num_samples; s += Team::size()) {
      const int64_t at = s * in.num_rows + r;
      put<T>(args.out[kLogp], at, token_logp(row.policy.of(in.tokens[at]), state.p, temperature));
    }
  if (Team::rank() == 0) write_row<T>(args, r, state, lse_of(state.p, temperature), argmax);
}

template <class Team, bool kReference, class T>
__device__ __forceinline__ void full_forward_row(const TokenStatsForward& args, int64_t r) {
  if (args.in.mask && !args.in.mask[r]) return write_masked<Team, T>(args, r);
  const auto bits = checked_bits<Team, Acc<T>>(args.in, r);
  const auto mine = read_row<Team, kReference, T>(args, r, bits);
  finish_row<Team, kReference, T>(args, r, bits, mine);
}

}  // namespace pgest::cuda
