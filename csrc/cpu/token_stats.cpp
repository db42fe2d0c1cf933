// token_stats on the CPU: one thread per row, a block of the row at a time, so that a row is read
// from memory once, whatever its length.

#include <algorithm>
#include <cmath>
#include <vector>

#include "../kernels/token_stats.h"
#include "../row.h"
#include "chosen.h"
#include "simd.h"

namespace pgest {
namespace {

template <class T>
PGEST_INLINE void load_one(const T* block, int64_t i, Acc<T>* buffer, Acc<T>& m) {
  const Acc<T> x = value(block[i]);
  if constexpr (kConverts<T>) buffer[i] = x;
  m = x > m ? x : m;
}

// A block of a row in the type it is computed in, and its maximum. Half types are converted into
// `buffer` on the way; others stay where they are. A maximum runs as fast as its longest chain of
// comparisons: two chains, over halves of the block, are what the compiler keeps in registers.
template <class T>
PGEST_INLINE Acc<T> load_max(const T* block, int64_t n, Acc<T>* buffer) {
  const int64_t h = n / 2;
  Acc<T> m0 = -std::numeric_limits<Acc<T>>::infinity(), m1 = m0;
#pragma omp simd reduction(max : m0, m1)
  for (int64_t i = 0; i < h; ++i) {
    load_one(block, i, buffer, m0);
    load_one(block, h + i, buffer, m1);
  }
  for (int64_t i = 2 * h; i < n; ++i) load_one(block, i, buffer, m0);
  return std::max(m0, m1);
}

// Sums of the block `x`, and load_max of the block after it. In one loop the loads keep memory
// streaming under the arithmetic, which alone takes as long as reading does; half types have half
// as much to read, and a loop that also converts runs slower than two.
template <bool kEntropy, class T>
PGEST_INLINE RowSums block_sums(const Acc<T>* x, int64_t n, Acc<T> pivot, Acc<T> bits, const T* next,
                                int64_t n_next, Acc<T>* buffer, Acc<T>& next_max) {
  Acc<T> s0 = 0, s1 = 0, m = -std::numeric_limits<Acc<T>>::infinity();
  const Acc<T> lowest = lowest_bits(bits);
  const int64_t together = kConverts<T> ? 0 : n_next;
  if constexpr (kConverts<T>) prefetch(next, n_next);
#pragma omp simd reduction(+ : s0, s1) reduction(max : m)
  for (int64_t i = 0; i < together; ++i) {
    const Acc<T> y = value(next[i]);
    m = y > m ? y : m;
    const Acc<T> d = clamp_bits((x[i] - pivot) * bits, lowest);
    const Acc<T> e = exp2_fast(d);
    s0 += e;
    if constexpr (kEntropy) s1 += e * d;
  }
#pragma omp simd reduction(+ : s0, s1)
  for (int64_t i = together; i < n; ++i) {
    const Acc<T> d = clamp_bits((x[i] - pivot) * bits, lowest);
    const Acc<T> e = exp2_fast(d);
    s0 += e;
    if constexpr (kEntropy) s1 += e * d;
  }
  next_max = kConverts<T> ? load_max(next, n_next, buffer) : m;
  return {static_cast<double>(pivot), s0, s1};
}

template <bool kEntropy, class T>
PGEST_INLINE RowSums row_sums(const T* row, int64_t vocab, double bits) {
  Acc<T> buffers[2][kConverts<T> ? kBlock : 1];
  RowSums sums;
  Acc<T> block_max = load_max(row, std::min(kBlock, vocab), buffers[0]);
  for (int64_t begin = 0, k = 0; begin < vocab; begin += kBlock, ++k) {
    const int64_t n = std::min(kBlock, vocab - begin);
    const int64_t n_next = std::min(kBlock, vocab - begin - n);
    const Acc<T>* x = block_of(row + begin, buffers[k % 2]);
    const double highest = std::max<double>(sums.pivot, block_max);
    // A block of -inf alone is still summed, relative to 0: it may hold a NaN.
    const bool empty = highest == -std::numeric_limits<double>::infinity();
    const Acc<T> pivot = empty ? 0 : static_cast<Acc<T>>(highest);
    RowSums block = block_sums<kEntropy>(x, n, pivot, static_cast<Acc<T>>(bits), row + begin + n,
                                         n_next, buffers[(k + 1) % 2], block_max);
    if (empty) block.pivot = highest;
    sums = merge(sums, block, bits);
  }
  return sums;
}

template <bool kEntropy, class T>
PGEST_CLONES Refusal forward_rows(const TokenStatsForward& args, int64_t begin, int64_t end) {
  const TokenStatsInput& in = args.in;
  auto* logp_out = static_cast<Acc<T>*>(args.out[kLogp]);
  auto* entropy_out = static_cast<Acc<T>*>(args.out[kEntropy]);
  auto* lse_out = static_cast<Acc<T>*>(args.out[kLse]);
  for (int64_t r = begin; r < end; ++r) {
    const bool live = !in.mask || in.mask[r];
    const T* row = static_cast<const T*>(in.logits) + in.rows.offset(r);
    const double temperature = in.temperature ? in.temperature[r] : 1.0;
    if (live && !fits<Acc<T>>(temperature)) return {Refusal::temperature, r, 0};
    RowState state{0, 0, 0};
    if (live) state = finish(row_sums<kEntropy>(row, in.rows.vocab, kLog2E / temperature));
    for (int64_t s = 0; s < in.num_samples; ++s) {
      const int64_t at = s * in.num_rows + r;
      const int64_t token = in.tokens[at];
      if (live && (token < 0 || token >= in.rows.vocab)) return {Refusal::token, r, s};
      if (logp_out) logp_out[at] = live ? token_logp(value(row[token]), state, temperature) : 0;
    }
    if (lse_out) lse_out[r] = static_cast<Acc<T>>(live ? lse_of(state, temperature) : 0);
    if (kEntropy) entropy_out[r] = static_cast<Acc<T>>(state.entropy);
    args.state_out[r] = state.pivot;
    args.state_out[in.num_rows + r] = state.log_s0;
    args.state_out[2 * in.num_rows + r] = kEntropy ? state.entropy : 0;
  }
  return {};
}

// p_j (slope * log2 p_j + base) of one logit, and the moments of log2 p where T needs them.
template <bool kEntropy, bool kTemperature, class A>
PGEST_INLINE A gradient_of(A x, const RowGradient<A>& c, A lowest, A& s1, A& s2) {
  const A d = clamp_bits((x - c.pivot) * c.bits + c.offset, lowest);
  const A p = exp2_fast(d);
  if constexpr (kTemperature) s1 += p * (d - c.center);
  if constexpr (kTemperature && kEntropy) s2 += p * (d - c.center) * (d - c.center);
  return kEntropy ? p * (c.slope * d + c.base) : p * c.base;
}

template <bool kEntropy, bool kTemperature, class T>
PGEST_INLINE RowMoments row_gradient(const T* row, T* out, int64_t vocab,
                                     const RowGradient<Acc<T>>& c) {
  Acc<T> x_buffer[kConverts<T> ? kBlock : 1], g_buffer[kConverts<T> ? kBlock : 1];
  const Acc<T> lowest = lowest_bits(c.bits);
  RowMoments moments{c.center};
  for (int64_t begin = 0; begin < vocab; begin += kBlock) {
    const int64_t n = std::min(kBlock, vocab - begin);
    const Acc<T>* x = load_block(row + begin, n, x_buffer);
    Acc<T>* g = block_of(out + begin, g_buffer);
    if constexpr (kConverts<T>) prefetch(row + begin + n, std::min(kBlock, vocab - begin - n));
    Acc<T> s1 = 0, s2 = 0;
#pragma omp simd reduction(+ : s1, s2)
    for (int64_t i = 0; i < n; ++i)
      g[i] = gradient_of<kEntropy, kTemperature>(x[i], c, lowest, s1, s2);
    moments.first += s1;
    moments.second += s2;
    store_block(out + begin, g, n);
  }
  return moments;
}

// The logits of the chosen tokens, with the sum of the weights of those that are equal. Taken
// before the row pass, which may overwrite them; put back after it with the weight added, so that
// a half type is rounded once. Equal tokens meet by sorting: S of them cost S log S.
template <class A>
class ChosenGradients {
 public:
  template <class T>
  PGEST_INLINE void take(const T* row, const Chosen<A>& chosen, double temperature) {
    tokens_.clear();
    for (int64_t s = 0; s < chosen.count(); ++s)
      tokens_.push_back({chosen.token(s), 0, chosen.weight(s) / temperature});
    if (tokens_.size() > 1)
      std::sort(tokens_.begin(), tokens_.end(),
                [](const Token& a, const Token& b) { return a.token < b.token; });
    size_t kept = 0;
    for (const Token& t : tokens_) {
      if (kept > 0 && tokens_[kept - 1].token == t.token) {
        tokens_[kept - 1].weight += t.weight;
      } else {
        tokens_[kept++] = {t.token, value(row[t.token]), t.weight};
      }
    }
    tokens_.resize(kept);
  }

  template <bool kEntropy, class T>
  PGEST_INLINE void put(T* out, const RowGradient<A>& c) const {
    A unused = 0;
    for (const Token& t : tokens_) {
      const A rest =
          gradient_of<kEntropy, false>(t.logit, c, lowest_bits(c.bits), unused, unused);
      round_to(out[t.token], static_cast<A>(rest + t.weight));
    }
  }

 private:
  struct Token {
    int64_t token;
    A logit;
    double weight;
  };
  std::vector<Token> tokens_;
};

template <bool kEntropy, bool kTemperature, class T>
PGEST_CLONES Refusal backward_rows(const TokenStatsBackward& args, int64_t begin, int64_t end) {
  using A = Acc<T>;
  const TokenStatsInput& in = args.in;
  const auto* grad_entropy = static_cast<const A*>(args.grad[kEntropy]);
  const auto* grad_lse = static_cast<const A*>(args.grad[kLse]);
  ChosenGradients<A> chosen_gradients;
  for (int64_t r = begin; r < end; ++r) {
    const int64_t offset = in.rows.offset(r);
    const T* row = static_cast<const T*>(in.logits) + offset;
    T* out = static_cast<T*>(args.grad_logits) + (args.inplace ? offset : r * in.rows.vocab);
    const Chosen<A> chosen{in, static_cast<const A*>(args.grad[kLogp]), r};
    RowUpstream up;
    if (kEntropy) up.entropy = grad_entropy[r];
    if (grad_lse) up.lse = grad_lse[r];
    // A row without a gradient is not read, so that a loss may mask it afterwards: no 0 * NaN.
    const bool silent = up.entropy == 0 && up.lse == 0 && chosen.silent();
    if (silent || (in.mask && !in.mask[r])) {
      std::fill_n(out, in.rows.vocab, T{});
      if (kTemperature) args.grad_temperature[r] = 0;
      continue;
    }
    const double temperature = in.temperature ? in.temperature[r] : 1.0;
    const RowState state{args.state[r], args.state[in.num_rows + r],
                         args.state[2 * in.num_rows + r]};
    double of_tokens = 0;
    for (int64_t k = 0; k < chosen.count(); ++k) {
      // Checked again: the caller may have written over the tokens since the forward.
      const int64_t token = chosen.token(k);
      if (token < 0 || token >= in.rows.vocab) return {Refusal::token, r, k};
      up.w += chosen.weight(k);
      if (kTemperature)
        of_tokens += temperature_of_token(chosen.weight(k), value(row[token]), state.pivot,
                                          temperature);
    }
    const RowGradient<A> c = gradient<A>(state, up, temperature);
    chosen_gradients.take(row, chosen, temperature);
    const RowMoments moments =
        row_gradient<kEntropy, kTemperature>(row, out, in.rows.vocab, c);
    chosen_gradients.template put<kEntropy>(out, c);
    if (kTemperature)
      args.grad_temperature[r] =
          temperature_gradient(of_tokens, up, state, moments, temperature);
  }
  return {};
}

template <class T>
Refusal forward(const TokenStatsForward& args, int64_t begin, int64_t end) {
  return args.out[kEntropy] ? forward_rows<true, T>(args, begin, end)
                      : forward_rows<false, T>(args, begin, end);
}

template <class T>
Refusal backward(const TokenStatsBackward& args, int64_t begin, int64_t end) {
  if (args.grad[kEntropy])
    return args.grad_temperature ? backward_rows<true, true, T>(args, begin, end)
                                 : backward_rows<true, false, T>(args, begin, end);
  return args.grad_temperature ? backward_rows<false, true, T>(args, begin, end)
                               : backward_rows<false, false, T>(args, begin, end);
}

}  // namespace

Refusal token_stats_forward_cpu(const TokenStatsForward& args, int64_t begin, int64_t end) {
  switch (args.in.dtype) {
    case DType::f64: return forward<double>(args, begin, end);
    case DType::f32: return forward<float>(args, begin, end);
    case DType::bf16: return forward<BFloat16>(args, begin, end);
    case DType::f16: return forward<Half>(args, begin, end);
  }
  return {};
}

Refusal token_stats_backward_cpu(const TokenStatsBackward& args, int64_t begin, int64_t end) {
  switch (args.in.dtype) {
    case DType::f64: return backward<double>(args, begin, end);
    case DType::f32: return backward<float>(args, begin, end);
    case DType::bf16: return backward<BFloat16>(args, begin, end);
    case DType::f16: return backward<Half>(args, begin, end);
  }
  return {};
}

}  // namespace pgest
