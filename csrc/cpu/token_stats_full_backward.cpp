// The gradient of token_stats with all that it can be given and asked for: one pass over the rows, a
// block of each at a time, whatever statistics have a gradient.

#include <algorithm>
#include <cmath>

#include "../upstream.h"
#include "pair_row.h"

namespace pgest {
namespace {

enum Terms { kPlain = 0, kWithKl = 1, kWithReverse = 2 };

// The gradient of row.h for a block, with the divergences' terms.
template <int kTerms, class A>
PGEST_INLINE void block_gradient(const A* x, const A* y, A* g, int64_t n, const PairGradient<A>& c) {
  const A lowest = lowest_bits(c.p.bits);
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const A l = clamp_bits((x[i] - c.p.pivot) * c.p.bits + c.p.offset, lowest);
    const A p = exp2_fast(l);
    A inner = c.p.slope * l + c.p.base;
    if constexpr (kTerms == kPlain) {
      g[i] = p * inner;
    } else {
      const A lq = (y[i] - c.q_pivot) * c.p.bits + c.q_offset;
      if constexpr (kTerms & kWithKl) inner += c.kl * (l - lq);
      A sum = p == 0 ? 0 : p * inner;
      if constexpr (kTerms & kWithReverse) sum -= c.reverse_kl * exp2_fast(clamp_bits(lq, lowest));
      g[i] = sum;
    }
  }
}

// Adds the expected reward's p_j r_j.
template <class A>
PGEST_INLINE void add_values(const A* x, const A* r, A* g, int64_t n, const PairGradient<A>& c) {
  const A lowest = lowest_bits(c.p.bits);
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const A p = exp2_fast(clamp_bits((x[i] - c.p.pivot) * c.p.bits + c.p.offset, lowest));
    const A term = c.value * p * r[i];
    g[i] += p == 0 ? 0 : term;
  }
}

// sum g (log2 p - center) of a block. An impossible token's u counts as 0, because it is no function
// of T.
template <class A>
PGEST_INLINE double moment_of_p(const A* x, const A* g, int64_t n, const PairGradient<A>& c) {
  const A at_zero = (0 - c.p.pivot) * c.p.bits + c.p.offset;
  A sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) {
    const A exact = (x[i] - c.p.pivot) * c.p.bits + c.p.offset;
    const A l = x[i] == -std::numeric_limits<A>::infinity() ? at_zero : exact;
    sum += g[i] == 0 ? 0 : g[i] * (l - c.p.center);
  }
  return sum;
}

// sum g' (log2 q - center) of a block, with the divergences' gradients for the reference's u':
// g'_j = kl (q_j - p_j) + reverse_kl q_j (log q_j - log p_j - KL(q||p)).
template <class A>
PGEST_INLINE double moment_of_q(const A* x, const A* y, int64_t n, const PairGradient<A>& c,
                                A reverse_bits) {
  const A lowest = lowest_bits(c.p.bits), kl = c.kl * A(kLog2E), ln2 = A(kLn2);
  A sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) {
    const A l = (x[i] - c.p.pivot) * c.p.bits + c.p.offset;
    const A lq = (y[i] - c.q_pivot) * c.p.bits + c.q_offset;
    const A p = exp2_fast(clamp_bits(l, lowest)), q = exp2_fast(clamp_bits(lq, lowest));
    const A by_reverse = q == 0 || c.reverse_kl == 0 ? 0 : c.reverse_kl * q * ln2 * (lq - l - reverse_bits);
    const A g = kl * (q - p) + by_reverse;
    sum += g == 0 ? 0 : g * (lq - c.p.center);
  }
  return sum;
}

// Times dv/dz of what the softcap squashes: 1 - tanh(w / softcap)^2, which with t = exp(-2 |w| /
// softcap) is 4 t / (1 + t)^2: so far from 0, where the difference would cancel.
template <class A>
PGEST_INLINE void through_softcap(const A* w, A* g, int64_t n, A inverse_softcap) {
  const A bits = inverse_softcap * A(-2 * kLog2E), lowest = lowest_bits(inverse_softcap);
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const A t = exp2_fast(clamp_bits((w[i] < 0 ? -w[i] : w[i]) * bits, lowest));
    const A inverse = 1 / (1 + t), tanh = (1 - t) * inverse;
    const A slope = t > A(0.25) ? 1 - tanh * tanh : 4 * t * inverse * inverse;
    const bool infinite = w[i] - w[i] != 0 && w[i] == w[i];
    g[i] *= infinite ? 1 : slope;
  }
}

// Nothing reaches what the threshold excludes.
template <class A>
PGEST_INLINE void through_threshold(const A* x, A* g, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) g[i] = x[i] == -std::numeric_limits<A>::infinity() ? 0 : g[i];
}

struct Weighted {
  int64_t token;
  double weight;
};

// Everything that the backward of one row needs.
template <class T>
struct RowBackward {
  using A = Acc<T>;
  PairRow<T> row;
  PairUpstream up;
  PairState state;
  double temperature;
  double of_tokens = 0;

  // The tokens that have a gradient of their own: those chosen, and those with a reward, each of which
  // counts as one chosen with weight p r.
  PGEST_INLINE void gather(const TokenStatsInput& in, const Chosen<A>& chosen,
                           std::vector<Weighted>& tokens) {
    tokens.clear();
    for (int64_t s = 0; s < chosen.count(); ++s)
      tokens.push_back({chosen.token(s), chosen.weight(s)});
    if (in.value_tokens && up.value != 0) {
      for (int64_t k = 0; k < in.num_values; ++k) {
        const int64_t at = chosen.row * in.num_values + k;
        const double term = value_term(in, row, at, state.p, temperature);
        tokens.push_back({in.value_tokens[at], up.value * term});
      }
      up.value = 0;
    }
    for (Weighted& t : tokens) {
      up.w += t.weight;
      of_tokens += temperature_of_token(t.weight, row.token(t.token), state.p.pivot, temperature);
      t.weight /= temperature;
    }
    std::sort(tokens.begin(), tokens.end(),
              [](const Weighted& a, const Weighted& b) { return a.token < b.token; });
  }

  PGEST_INLINE int terms() const {
    return (up.kl != 0 ? kWithKl : 0) | (up.reverse_kl != 0 ? kWithReverse : 0);
  }

  // Writes the row's gradient to `out` and returns its temperature's.
  PGEST_INLINE double run(int64_t vocab, T* out, const std::vector<Weighted>& tokens,
                          bool by_temperature) const {
    A x_buffer[kPairBlock], y_buffer[kPairBlock], r_buffer[kPairBlock], g_buffer[kPairBlock];
    const PairGradient<A> c = gradient<A>(state, up, temperature);
    const A reverse_bits = static_cast<A>(state.reverse_kl * kLog2E);
    const bool rewards = row.values && up.value != 0;
    // Written at once, unless later loops still read logits that lie there.
    const bool direct = !kConverts<T> && !rewards && !by_temperature &&
                        !row.transformed;
    PairMoments moments{c.p.center};
    auto token = tokens.begin();
    for (int64_t at = 0; at < vocab; at += kPairBlock) {
      const int64_t n = std::min(kPairBlock, vocab - at);
      const A* x = row.block(at, n, x_buffer);
      const A* y = terms() ? row.reference_block(at, n, y_buffer) : nullptr;
      A* g = direct ? block_of(out + at, g_buffer) : g_buffer;
      switch (terms()) {
        case kPlain: block_gradient<kPlain>(x, y, g, n, c); break;
        case kWithKl: block_gradient<kWithKl>(x, y, g, n, c); break;
        case kWithReverse: block_gradient<kWithReverse>(x, y, g, n, c); break;
        default: block_gradient<kWithKl | kWithReverse>(x, y, g, n, c);
      }
      if (rewards) add_values(x, row.values_block(at, n, r_buffer), g, n, c);
      if (by_temperature) {
        moments.of_p += moment_of_p(x, g, n, c);
        if (terms()) moments.of_q += moment_of_q(x, y, n, c, reverse_bits);
      }
      for (; token != tokens.end() && token->token < at + n; ++token)
        g[token->token - at] = static_cast<A>(g[token->token - at] + token->weight);
      if (row.excludes()) through_threshold(x, g, n);
      if (row.by.softcap != 0)
        through_softcap(row.unshaped_block(at, n, y_buffer), g, n, row.by.inverse_softcap);
      if constexpr (kConverts<T>) {
        store_block(out + at, g, n);
      } else if (!direct) {
        std::copy_n(g, n, out + at);
      }
    }
    if (!by_temperature) return 0;
    return temperature_gradient(of_tokens, up, state.p, moments, temperature);
  }
};

template <class T>
PGEST_CLONES Refusal full_backward_rows(const TokenStatsBackward& args, int64_t begin, int64_t end) {
  const TokenStatsInput& in = args.in;
  std::vector<Weighted> tokens;
  for (int64_t r = begin; r < end; ++r) {
    T* out = static_cast<T*>(args.grad_logits) +
             (args.inplace ? in.rows.offset(r) : r * in.rows.vocab);
    const Chosen<Acc<T>> chosen{in, static_cast<const Acc<T>*>(args.grad[kLogp]), r};
    const PairUpstream up = upstream<Acc<T>>(args, r);
    // A row without a gradient is not read, so that a loss may mask it afterwards: no 0 * NaN.
    const bool silent = up.entropy == 0 && up.lse == 0 && up.kl == 0 && up.reverse_kl == 0 &&
                        up.value == 0 && chosen.silent();
    if (silent || (in.mask && !in.mask[r])) {
      std::fill_n(out, in.rows.vocab, T{});
      if (args.grad_temperature) args.grad_temperature[r] = 0;
      continue;
    }
    // Checked again: the caller may have written over the tokens since the forward.
    const Refusal refusal = refuse_tokens(in, r, chosen.count());
    if (refusal.kind != Refusal::none) return refusal;
    RowBackward<T> backward{PairRow<T>(in, r), up, saved_state(args, r),
                            in.temperature ? in.temperature[r] : 1.0};
    backward.gather(in, chosen, tokens);
    const double by_temperature =
        backward.run(in.rows.vocab, out, tokens, args.grad_temperature != nullptr);
    if (args.grad_temperature) args.grad_temperature[r] = by_temperature;
  }
  return {};
}

}  // namespace

Refusal token_stats_full_backward_cpu(const TokenStatsBackward& args, int64_t begin, int64_t end) {
  switch (args.in.dtype) {
    case DType::f64: return full_backward_rows<double>(args, begin, end);
    case DType::f32: return full_backward_rows<float>(args, begin, end);
    case DType::bf16: return full_backward_rows<BFloat16>(args, begin, end);
    case DType::f16: return full_backward_rows<Half>(args, begin, end);
  }
  return {};
}

}  // namespace pgest
