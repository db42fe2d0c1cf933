// A row of token_stats and its gradient, of logits as they are. The forward keeps running sums in each
// thread and merges them once, so that a row is read once, however long; the backward needs no sum over the
// row unless the temperature does.
#pragma once

#include "../row.h"
#include "chosen.h"
#include "sums.h"

namespace pgest::cuda {

// Writes the statistics; every thread of the team gets what the backward needs.
template <class Team, class T>
__device__ __forceinline__ RowState forward_row(const TokenStatsForward& args, int64_t r) {
  using A = Acc<T>;
  const TokenStatsInput& in = args.in;
  auto* logp_out = static_cast<A*>(args.out[kLogp]);
  auto* entropy_out = static_cast<A*>(args.out[kEntropy]);
  auto* lse_out = static_cast<A*>(args.out[kLse]);
  const T* row = static_cast<const T*>(in.logits) + in.rows.offset(r);
  const bool live = !in.mask || in.mask[r];
  const double temperature = temperature_of<A>(in, r, live);
  RowState state{0, 0, 0};
  if (live) state = finish(row_sums<Team>(row, in.rows.vocab, kLog2E / temperature));
  for (int64_t s = Team::rank(); s < in.num_samples; s += Team::size()) {
    const int64_t at = s * in.num_rows + r, token = in.tokens[at];
    if (live && (token < 0 || token >= in.rows.vocab)) refuse(Refusal::token, r, s);
    if (logp_out) logp_out[at] = live ? token_logp(value(row[token]), state, temperature) : 0;
  }
  if (Team::rank() != 0) return state;
  if (lse_out) lse_out[r] = static_cast<A>(live ? lse_of(state, temperature) : 0);
  if (entropy_out) entropy_out[r] = static_cast<A>(state.entropy);
  args.state_out[r] = state.pivot;
  args.state_out[in.num_rows + r] = state.log_s0;
  args.state_out[2 * in.num_rows + r] = state.entropy;
  return state;
}

// p_j (slope * log2 p_j + base) of a chunk, and the moments of log2 p where T needs them.
template <bool kTemperature, class A>
__device__ __forceinline__ A gradient_of(A x, const RowGradient<A>& c, A& first, A& second) {
  const A exact = (x - c.pivot) * c.bits + c.offset, d = at_least(lowest_bits<A>(), exact);
  const A p = exp2_fast(exact);
  if constexpr (kTemperature) {
    first += p * (d - c.center);
    second += p * (d - c.center) * (d - c.center);
  }
  return p * (c.slope * d + c.base);
}

template <class Team, bool kTemperature, class T>
__device__ RowMoments row_gradient(const T* row, T* out, int64_t vocab, const RowGradient<Acc<T>>& c) {
  Acc<T> first = 0, second = 0;
  for_chunks<Team>(row, vocab, [&](int64_t at, int n, const auto& chunk) {
    Acc<T> x[kChunk];
    load_chunk(row + at, n, x, -kInfinity<Acc<T>>, chunk);
#pragma unroll
    for (int i = 0; i < kChunk; ++i) x[i] = gradient_of<kTemperature>(x[i], c, first, second);
    store(out + at, n, x);
  });
  RowMoments moments{c.center};
  if constexpr (kTemperature) {
    moments.first = sum_of<Team>(static_cast<double>(first));
    moments.second = sum_of<Team>(static_cast<double>(second));
  }
  return moments;
}

// `saved()` is what the forward left; a row without a gradient does not ask for it.
template <class Team, bool kTemperature, class T, class Saved>
__device__ __forceinline__ void backward_row(const TokenStatsBackward& args, int64_t r, const Saved& saved) {
  using A = Acc<T>;
  const TokenStatsInput& in = args.in;
  const auto* grad_entropy = static_cast<const A*>(args.grad[kEntropy]);
  const auto* grad_lse = static_cast<const A*>(args.grad[kLse]);
  const int64_t offset = in.rows.offset(r);
  const T* row = static_cast<const T*>(in.logits) + offset;
  T* out = static_cast<T*>(args.grad_logits) + (args.inplace ? offset : r * in.rows.vocab);
  const Chosen<T> chosen{in, static_cast<const A*>(args.grad[kLogp]), static_cast<A*>(args.chosen), r};
  RowUpstream up;
  if (grad_entropy) up.entropy = grad_entropy[r];
  if (grad_lse) up.lse = grad_lse[r];
  // A row without a gradient is not read, so that a loss may mask it afterwards: no 0 * NaN.
  const bool none = up.entropy == 0 && up.lse == 0 && silent<Team>(chosen);
  if (none || (in.mask && !in.mask[r])) {
    fill_zero<Team>(out, in.rows.vocab);
    if (kTemperature && Team::rank() == 0) args.grad_temperature[r] = 0;
    return;
  }
  const double temperature = in.temperature ? in.temperature[r] : 1.0;
  const RowState state = saved();
  up.w = sum_over<Team>(chosen, [](int64_t, double weight) { return weight; });
  const RowGradient<A> c = gradient<A>(state, up, temperature);
  double of_tokens = 0;
  if (kTemperature)
    of_tokens = sum_over<Team>(chosen, [&](int64_t token, double weight) {
      return temperature_of_token(weight, value(row[token]), state.pivot, temperature);
    });
  A unused = 0;
  keep<Team>(chosen, temperature, [&](int64_t token, double weight) {
    return static_cast<A>(gradient_of<false>(value(row[token]), c, unused, unused) + weight);
  });
  const RowMoments moments = row_gradient<Team, kTemperature>(row, out, in.rows.vocab, c);
  put_kept<Team>(chosen, out);
  if (kTemperature && Team::rank() == 0)
    args.grad_temperature[r] = temperature_gradient(of_tokens, up, state, moments, temperature);
}

}  // namespace pgest::cuda
