// The gradient of a row of token_stats with all that it can be given and asked for: one pass, whatever
// statistics have a gradient. What is done once a row is in functions of its own, out of the way of the
// pass's registers.
#pragma once

#include "../upstream.h"
#include "chosen.h"
#include "pair_row.h"
#include "sums.h"

namespace pgest::cuda {

// The gradient of row.h for one element, with the divergences' and the rewards' terms.
template <bool kReference, class A>
__device__ __forceinline__ A gradient_of(A x, A y, A r, const PairGradient<A>& c) {
  const A exact = (x - c.p.pivot) * c.p.bits + c.p.offset, l = at_least(lowest_bits<A>(), exact);
  const A p = exp2_fast(exact);
  A inner = c.p.slope * l + c.p.base, g = p * inner;
  if (kReference && (c.kl != 0 || c.reverse_kl != 0)) {
    const A lq = (y - c.q_pivot) * c.p.bits + c.q_offset;
    if (c.kl != 0) inner += c.kl * (l - lq);
    g = p == 0 ? 0 : p * inner;
    if (c.reverse_kl != 0) g -= c.reverse_kl * exp2_fast(lq);
  }
  if (c.value != 0) g += p == 0 ? 0 : c.value * p * r;
  return g;
}

// g (log2 p - center) of one element. An impossible token's u counts as 0, because it is no function of T.
template <class A>
__device__ __forceinline__ A moment_of_p(A x, A g, const PairGradient<A>& c) {
  const A u = x == -kInfinity<A> ? 0 : x;
  return g == 0 ? 0 : g * ((u - c.p.pivot) * c.p.bits + c.p.offset - c.p.center);
}

// g' (log2 q - center) of one element, with the divergences' gradients for the reference's u':
// g'_j = kl (q_j - p_j) + reverse_kl q_j (log q_j - log p_j - KL(q||p)).
template <class A>
__device__ __forceinline__ A moment_of_q(A x, A y, const PairGradient<A>& c, A reverse_bits) {
  const A l = (x - c.p.pivot) * c.p.bits + c.p.offset;
  const A lq = (y - c.q_pivot) * c.p.bits + c.q_offset;
  const A p = exp2_fast(l), q = exp2_fast(lq);
  A g = c.kl * A(kLog2E) * (q - p);
  if (q != 0 && c.reverse_kl != 0) g += c.reverse_kl * q * A(kLn2) * (lq - l - reverse_bits);
  return g == 0 ? 0 : g * (lq - c.p.center);
}

// dv/dw of w that the softcap squashes: 1 - tanh(w / softcap)^2, which with t = exp(-2 |w| / softcap) is
// 4 t / (1 + t)^2: so far from 0, where the difference would cancel.
template <class A>
__device__ __forceinline__ A slope_of_softcap(A w, A inverse_softcap) {
  const A t = exp2_fast(fabs(w) * inverse_softcap * A(-2 * kLog2E));
  const A inverse = reciprocal_fast(1 + t), tanh = (1 - t) * inverse;
  const A slope = t > A(0.25) ? 1 - tanh * tanh : 4 * t * inverse * inverse;
  return fabs(w) == kInfinity<A> ? 1 : slope;
}

// A chunk's gradient for v becomes that for z.
template <class T, class Size>
__device__ __forceinline__ void through_softcap(const Values<T>& values, int64_t at, int n, Acc<T>* g,
                                                const Size& chunk) {
  Acc<T> w[kChunk];
  values.load_unsquashed(at, n, w, chunk);
#pragma unroll
  for (int i = 0; i < kChunk; ++i) g[i] *= slope_of_softcap(w[i], values.inverse_softcap);
}

// The tokens of a row that have a gradient of their own: those chosen, and value_tokens, each of which
// counts as one chosen with weight p r.
template <class T>
struct Weighted {
  const TokenStatsInput& in;
  Chosen<T> chosen;
  PairRow<T> row;
  RowState state;
  double temperature, grad_value;

  __device__ Weighted(const TokenStatsBackward& args, int64_t r)
      : in(args.in),
        chosen{in, static_cast<const Acc<T>*>(args.grad[kLogp]), static_cast<Acc<T>*>(args.chosen), r},
        row(pair_row<T>(in, r)),
        state(saved_state(args, r).p),
        temperature(in.temperature ? in.temperature[r] : 1.0),
        grad_value(in.value_tokens ? upstream<Acc<T>>(args, r).value : 0) {}

  __device__ int64_t count() const { return chosen.count() + (grad_value != 0 ? in.num_values : 0); }
  __device__ int64_t token(int64_t k) const {
    return k < chosen.count() ? chosen.token(k) : in.value_tokens[place(k)];
  }
  __device__ double weight(int64_t k) const {
    if (k < chosen.count()) return chosen.weight(k);
    return grad_value * value_term(in, row, place(k), state, temperature);
  }
  __device__ Acc<T>& kept(int64_t k) const {
    return k < chosen.count() ? chosen.kept(k) : chosen.room[chosen.count() * in.num_rows + place(k)];
  }

 private:
  __device__ int64_t place(int64_t k) const { return chosen.row * in.num_values + k - chosen.count(); }
};

// What the pass over a row needs.
template <class A>
struct Pass {
  PairGradient<A> c;
  A reverse_bits;
  bool silent;
};

// The gradient of one token with a weight of its own.
template <bool kReference, class T>
__device__ Acc<T> gradient_of_token(const PairRow<T>& row, const PairGradient<Acc<T>>& c, int64_t token,
                                    double weight) {
  using A = Acc<T>;
  const Values<T>& values = row.policy;
  const A x = values.of(token), y = kReference ? value(row.reference[token]) : 0;
  const A g = gradient_of<kReference>(x, y, c.value != 0 ? row.reward(token) : 0, c);
  if (values.excludes() && x == -kInfinity<A>) return 0;
  const A slope = values.softcap != 0 ? slope_of_softcap(values.unsquashed(token), values.inverse_softcap) : 1;
  return static_cast<A>(g + weight) * slope;
}

// All that is read of a row before the pass that may overwrite it: the gradients of its tokens, and what
// grad_temperature is without the pass's moments.
template <class Team, bool kReference, class T>
__device__ __noinline__ Pass<Acc<T>> before_pass(const TokenStatsBackward& args, int64_t r) {
  using A = Acc<T>;
  PairUpstream up = upstream<Acc<T>>(args, r);
  const Weighted<T> tokens(args, r);
  // A row without a gradient is not read, so that a loss may mask it afterwards: no 0 * NaN.
  const bool none = up.entropy == 0 && up.lse == 0 && up.kl == 0 && up.reverse_kl == 0 && up.value == 0 &&
                    silent<Team>(tokens.chosen);
  if (none || (args.in.mask && !args.in.mask[r])) return {{}, 0, true};
  // Checked again: the caller may have written over the tokens since the forward.
  refuse_tokens<Team>(args.in, r, tokens.chosen.count());
  if (args.in.value_tokens) up.value = 0;
  up.w = sum_over<Team>(tokens, [](int64_t, double weight) { return weight; });
  const PairState state = saved_state(args, r);
  const PairGradient<A> c = gradient<A>(state, up, tokens.temperature);
  keep<Team>(tokens, tokens.temperature, [&](int64_t token, double weight) {
    return gradient_of_token<kReference>(tokens.row, c, token, weight);
  });
  if (args.grad_temperature) {
    const double of_tokens = sum_over<Team>(tokens, [&](int64_t token, double weight) {
      return temperature_of_token(weight, tokens.row.policy.of(token), state.p.pivot, tokens.temperature);
    });
    if (Team::rank() == 0)
      args.grad_temperature[r] =
          temperature_gradient(of_tokens, up, state.p, PairMoments{c.p.center}, tokens.temperature);
  }
  return {c, static_cast<A>(state.reverse_kl * kLog2E), false};
}

// The tokens' gradients, and the moments' part of the temperature's.
template <class Team, class T>
__device__ __noinline__ void after_pass(const TokenStatsBackward& args, int64_t r, T* out, Acc<T> moment) {
  put_kept<Team>(Weighted<T>(args, r), out);
  if (!args.grad_temperature) return;
  const double all = sum_of<Team>(static_cast<double>(moment));
  if (Team::rank() == 0) args.grad_temperature[r] -= kLn2 * all;
}

template <class Team, class T>
__device__ __noinline__ void silence(const TokenStatsBackward& args, int64_t r, T* out) {
  fill_zero<Team>(out, args.in.rows.vocab);
  if (args.grad_temperature && Team::rank() == 0) args.grad_temperature[r] = 0;
}

// Writes a row's gradient and returns the thread's part of its moments.
template <class Team, bool kReference, class T>
__device__ __forceinline__ Acc<T> write_gradient(const TokenStatsBackward& args, const PairRow<T>& row, T* out,
                                      const Pass<Acc<T>>& pass) {
  using A = Acc<T>;
  const PairGradient<A>& c = pass.c;
  const bool by_temperature = args.grad_temperature, excludes = row.policy.excludes();
  const bool compares = c.kl != 0 || c.reverse_kl != 0;
  A moment = 0;
  row.template chunks<Team, kReference>(args.in.rows.vocab, [&](int64_t at, int n, const auto& chunk) {
    A x[kChunk], y[kChunk] = {}, r[kChunk] = {};
    if (c.value != 0) row.load_rewards(at, n, r, chunk);
    row.policy.load(at, n, x, chunk);
    if constexpr (kReference) row.load_reference(at, n, y, chunk);
#pragma unroll
    for (int i = 0; i < kChunk; ++i) {
      A g = gradient_of<kReference>(x[i], y[i], r[i], c);
      if (by_temperature) {
        moment += moment_of_p(x[i], g, c);
        if (kReference && compares) moment += moment_of_q(x[i], y[i], c, pass.reverse_bits);
      }
      // Nothing reaches what the threshold excludes.
      if (excludes && x[i] == -kInfinity<A>) g = 0;
      x[i] = g;
    }
    if (row.policy.softcap != 0) through_softcap(row.policy, at, n, x, chunk);
    store(out + at, n, x);
  });
  return moment;
}

template <class Team, bool kReference, class T>
__device__ __forceinline__ void full_backward_row(const TokenStatsBackward& args, int64_t r) {
  const PairRow<T> row = pair_row<T>(args.in, r);
  const int64_t offset = args.inplace ? row.policy.logits - static_cast<const T*>(args.in.logits)
                                      : r * args.in.rows.vocab;
  T* out = static_cast<T*>(args.grad_logits) + offset;
  const Pass<Acc<T>> pass = before_pass<Team, kReference, T>(args, r);
  if (pass.silent) return silence<Team>(args, r, out);
  const Acc<T> moment = write_gradient<Team, kReference>(args, row, out, pass);
  after_pass<Team>(args, r, out, moment);
}

}  // namespace pgest::cuda
