// token_stats with all that it can be given and asked for: any subset of the statistics in one pass
// over the rows, a block of each at a time.

#include <algorithm>
#include <cmath>

#include "pair_row.h"

namespace pgest {
namespace {

constexpr double kNone = -std::numeric_limits<double>::infinity();

template <class A>
PGEST_INLINE A highest(const A* x, int64_t n) {
  A m = -std::numeric_limits<A>::infinity();
#pragma omp simd reduction(max : m)
  for (int64_t i = 0; i < n; ++i) m = x[i] > m ? x[i] : m;
  return m;
}

// Sums of a block relative to the sums' own pivots, and its maxima.
template <bool kReference, bool kReverse, class A>
PGEST_INLINE PairSums block_sums(const A* x, const A* y, int64_t n, A pivot, A q_pivot, A bits,
                                 A& x_max, A& y_max) {
  const A lowest = lowest_bits(bits);
  constexpr A kNever = -std::numeric_limits<A>::infinity();
  A s0 = 0, s1 = 0, q0 = 0, kl = 0, reverse = 0;
  A m = kNever, mq = kNever, p_alone = kNever, q_alone = kNever;
#pragma omp simd reduction(+ : s0, s1, q0, kl, reverse) reduction(max : m, mq, p_alone, q_alone)
  for (int64_t i = 0; i < n; ++i) {
    m = x[i] > m ? x[i] : m;
    const A exact = (x[i] - pivot) * bits;
    const A d = clamp_bits(exact, lowest);
    const A e = exp2_fast(d);
    s0 += e;
    s1 += e * d;
    if constexpr (kReference) {
      mq = y[i] > mq ? y[i] : mq;
      const A dq = (y[i] - q_pivot) * bits;
      const A eq = exp2_fast(clamp_bits(dq, lowest));
      q0 += eq;
      const A alone = dq == kNever ? x[i] : kNever;
      p_alone = alone > p_alone ? alone : p_alone;
      kl += e == 0 || dq == kNever ? 0 : e * (d - dq);
      if constexpr (kReverse) {
        const A q_only = exact == kNever ? y[i] : kNever;
        q_alone = q_only > q_alone ? q_only : q_alone;
        reverse += eq == 0 || exact == kNever ? 0 : eq * (dq - exact);
      }
    }
  }
  x_max = m;
  y_max = mq;
  PairSums sums;
  sums.p = {static_cast<double>(pivot), s0, s1};
  sums.q = {static_cast<double>(q_pivot), q0, 0};
  sums.kl = kl;
  sums.reverse_kl = reverse;
  sums.p_alone = p_alone;
  sums.q_alone = q_alone;
  return sums;
}

template <class A>
PGEST_INLINE double block_value(const A* x, const A* r, int64_t n, A pivot, A bits) {
  const A lowest = lowest_bits(bits);
  A sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) {
    const A e = exp2_fast(clamp_bits((x[i] - pivot) * bits, lowest));
    const A term = e * r[i];
    sum += x[i] == -std::numeric_limits<A>::infinity() ? 0 : term;
  }
  return sum;
}

// How many of a block are larger than v. NaN counts as larger, so that no token of a NaN row is first.
template <class A>
PGEST_INLINE int64_t count_larger(const A* x, int64_t n, A v) {
  int32_t count = 0;
#pragma omp simd reduction(+ : count)
  for (int64_t i = 0; i < n; ++i) count += x[i] <= v ? 0 : 1;
  return count;
}

// Sums of a row and what a pass finds beside them.
template <class A>
struct Found {
  PairSums sums;
  double top = kNone, q_top = kNone;
  int64_t argmax = 0;
  std::vector<A> chosen;        // values of the tokens whose rank is asked for
  std::vector<int64_t> larger;  // how many are larger
};

// Whether a maximum is so far above a pivot that the block must be summed anew, relative to it.
PGEST_INLINE bool raises(double top, double pivot, double bits) {
  return top > pivot && (pivot == kNone || (top - pivot) * bits > kSlackBits);
}

template <bool kReference, bool kReverse, class A>
PGEST_INLINE void add_block(Found<A>& found, const A* x, const A* y, int64_t n, double bits, A& x_max) {
  A y_max;
  for (;;) {
    PairSums& sums = found.sums;
    // A block of -inf alone is still summed, relative to 0: it may hold a NaN.
    const A pivot = sums.p.pivot == kNone ? 0 : static_cast<A>(sums.p.pivot);
    const A q_pivot = sums.q.pivot == kNone ? 0 : static_cast<A>(sums.q.pivot);
    const PairSums block = block_sums<kReference, kReverse>(x, y, n, pivot, q_pivot,
                                                            static_cast<A>(bits), x_max, y_max);
    const bool higher = raises(x_max, sums.p.pivot, bits);
    const bool q_higher = kReference && raises(y_max, sums.q.pivot, bits);
    if (!higher && !q_higher) {
      sums.p.s0 += block.p.s0;
      sums.p.s1 += block.p.s1;
      sums.q.s0 += block.q.s0;
      sums.kl += block.kl;
      sums.reverse_kl += block.reverse_kl;
      sums.p_alone = std::max(sums.p_alone, block.p_alone);
      sums.q_alone = std::max(sums.q_alone, block.q_alone);
      break;
    }
    sums = rebase(sums, higher ? x_max : sums.p.pivot, q_higher ? y_max : sums.q.pivot, bits);
  }
  found.top = std::max<double>(found.top, x_max);
  if (kReference) found.q_top = std::max<double>(found.q_top, y_max);
}

// The first NaN of a row, as torch.argmax has it; else the first of its largest.
template <class T>
PGEST_INLINE int64_t first_nan(const PairRow<T>& row, int64_t vocab, int64_t otherwise) {
  Acc<T> buffer[kPairBlock];
  for (int64_t at = 0; at < vocab; at += kPairBlock) {
    const int64_t n = std::min(kPairBlock, vocab - at);
    const Acc<T>* x = row.block(at, n, buffer);
    for (int64_t i = 0; i < n; ++i)
      if (x[i] != x[i]) return at + i;
  }
  return otherwise;
}

template <class T>
PGEST_INLINE void read_row(const TokenStatsForward& args, const PairRow<T>& row, double bits,
                           Found<Acc<T>>& found) {
  using A = Acc<T>;
  A x_buffer[kPairBlock], y_buffer[kPairBlock], r_buffer[kPairBlock];
  const int64_t vocab = args.in.rows.vocab;
  const bool reference = args.out[kKl] || args.out[kReverseKl];
  for (int64_t at = 0; at < vocab; at += kPairBlock) {
    const int64_t n = std::min(kPairBlock, vocab - at);
    const A* x = row.block(at, n, x_buffer);
    const A* y = reference ? row.reference_block(at, n, y_buffer) : nullptr;
    if (at == 0) {
      found.sums.p.pivot = highest(x, n);
      if (reference) found.sums.q.pivot = highest(y, n);
    }
    const double top = found.top;
    A x_max;
    if (args.out[kReverseKl]) {
      add_block<true, true>(found, x, y, n, bits, x_max);
    } else if (reference) {
      add_block<true, false>(found, x, y, n, bits, x_max);
    } else {
      add_block<false, false>(found, x, y, n, bits, x_max);
    }
    if (args.out[kValue] && row.values) {
      const double pivot = found.sums.p.pivot;
      found.sums.value += block_value(x, row.values_block(at, n, r_buffer), n,
                                      static_cast<A>(pivot == kNone ? 0 : pivot),
                                      static_cast<A>(bits));
    }
    if (args.argmax_out && x_max > top) found.argmax = at + (std::find(x, x + n, x_max) - x);
    for (size_t s = 0; s < found.chosen.size(); ++s)
      found.larger[s] += count_larger(x, n, found.chosen[s]);
  }
  found.sums = rebase(found.sums, found.top, found.q_top, bits);
  if (args.argmax_out && std::isnan(found.sums.p.s0))
    found.argmax = first_nan(row, vocab, found.argmax);
}

// Whether a value's probability, relative to that of the largest, is more than 0 in the kernel's type.
template <class A>
PGEST_INLINE bool possible(double v, double largest, double bits) {
  const A scale = static_cast<A>(bits);
  const A d = (static_cast<A>(v) - static_cast<A>(largest)) * scale;
  return v != kNone && exp2_fast(clamp_bits(d, lowest_bits(scale))) != 0;
}

template <class T>
PGEST_INLINE void put(void* out, int64_t at, double x) {
  if (out) static_cast<Acc<T>*>(out)[at] = static_cast<Acc<T>>(x);
}

// Statistics of one row; those of a masked one are 0.
template <class T>
PGEST_INLINE void write_row(const TokenStatsForward& args, int64_t r, const PairState& state,
                            double lse, int64_t argmax) {
  put<T>(args.out[kEntropy], r, state.p.entropy);
  put<T>(args.out[kLse], r, lse);
  put<T>(args.out[kKl], r, state.kl);
  put<T>(args.out[kReverseKl], r, state.reverse_kl);
  put<T>(args.out[kValue], r, state.value);
  if (args.argmax_out) args.argmax_out[r] = argmax;
  const double rows[kPairState] = {state.p.pivot,    state.p.log_s0, state.p.entropy,
                                   state.q_pivot,    state.q_log_s0, state.kl,
                                   state.reverse_kl, state.value};
  for (int64_t k = 0; k < (args.pair() ? kPairState : kRowState); ++k)
    args.state_out[k * args.in.num_rows + r] = rows[k];
}

template <class T>
PGEST_CLONES Refusal full_forward_rows(const TokenStatsForward& args, int64_t begin, int64_t end) {
  const TokenStatsInput& in = args.in;
  Found<Acc<T>> found;
  for (int64_t r = begin; r < end; ++r) {
    if (in.mask && !in.mask[r]) {
      for (int64_t s = 0; s < in.num_samples; ++s) {
        put<T>(args.out[kLogp], s * in.num_rows + r, 0);
        if (args.rank_out) args.rank_out[s * in.num_rows + r] = 0;
      }
      write_row<T>(args, r, PairState{}, 0, 0);
      continue;
    }
    const double temperature = in.temperature ? in.temperature[r] : 1.0;
    if (!fits<Acc<T>>(temperature)) return {Refusal::temperature, r, 0};
    const Refusal refusal = refuse_tokens(in, r, in.num_samples);
    if (refusal.kind != Refusal::none) return refusal;

    const PairRow<T> row(in, r);
    found.sums = PairSums{};
    found.top = found.q_top = kNone;
    found.argmax = 0;
    found.chosen.clear();
    if (args.rank_out)
      for (int64_t s = 0; s < in.num_samples; ++s)
        found.chosen.push_back(row.token(in.tokens[s * in.num_rows + r]));
    found.larger.assign(found.chosen.size(), 0);
    const double bits = kLog2E / temperature;
    read_row(args, row, bits, found);

    PairSums& sums = found.sums;
    if (possible<Acc<T>>(sums.p_alone, sums.p.pivot, bits)) sums.kl -= kNone;
    if (possible<Acc<T>>(sums.q_alone, sums.q.pivot, bits)) sums.reverse_kl -= kNone;
    PairState state{finish(sums.p)};
    if (args.out[kKl] || args.out[kReverseKl]) state = finish(sums);
    if (args.out[kValue] && !in.value_tokens)
      state.value = reward_of(found.sums.value) / found.sums.p.s0;
    if (args.out[kValue] && in.value_tokens) {
      double sum = state.p.log_s0 * 0;  // NaN for a row that has no probabilities
      for (int64_t k = 0; k < in.num_values; ++k)
        sum += value_term(in, row, r * in.num_values + k, state.p, temperature);
      state.value = reward_of(sum);
    }
    for (int64_t s = 0; s < in.num_samples; ++s) {
      const int64_t at = s * in.num_rows + r;
      if (args.out[kLogp])
        put<T>(args.out[kLogp], at, token_logp(row.token(in.tokens[at]), state.p, temperature));
      if (args.rank_out) args.rank_out[at] = found.larger[s];
    }
    write_row<T>(args, r, state, lse_of(state.p, temperature), found.argmax);
  }
  return {};
}

}  // namespace

Refusal token_stats_full_forward_cpu(const TokenStatsForward& args, int64_t begin, int64_t end) {
  switch (args.in.dtype) {
    case DType::f64: return full_forward_rows<double>(args, begin, end);
    case DType::f32: return full_forward_rows<float>(args, begin, end);
    case DType::bf16: return full_forward_rows<BFloat16>(args, begin, end);
    case DType::f16: return full_forward_rows<Half>(args, begin, end);
  }
  return {};
}

}  // namespace pgest
