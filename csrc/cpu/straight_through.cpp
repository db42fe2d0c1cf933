// Hard samples with a Jacobian, on the CPU: the forward hands the sample on, the backward is one pass
// over the logits and the upstream gradient.

#include "../kernels/relaxed.h"
#include "soft_row.h"

namespace pgest {
namespace {

// The token of a row that must be 0 but for one 1; -1 if it is not.
template <class T>
PGEST_INLINE int64_t token_of(const T* row, int64_t vocab) {
  int64_t token = -1;
  for (int64_t i = 0; i < vocab; ++i) {
    const Acc<T> x = value(row[i]);
    if (x == 0) continue;
    if (x != 1 || token >= 0) return -1;
    token = i;
  }
  return token;
}

template <class T>
Refusal forward_rows(const StraightThroughForward& args, int64_t begin, int64_t end) {
  const int64_t vocab = args.in.rows.vocab;
  T one{};
  round_to(one, Acc<T>(1));
  for (int64_t r = begin; r < end; ++r) {
    if (!fits<Acc<T>>(temperature_of(args.in, r))) return {Refusal::temperature, r, 0};
    const auto* given = static_cast<const T*>(args.one_hot);
    const int64_t token = given ? token_of(given + r * vocab, vocab) : args.tokens[r];
    if (token < 0 || token >= vocab) return {given ? Refusal::one_hot : Refusal::token, r, 0};
    T* out = static_cast<T*>(args.out) + r * vocab;
    std::fill_n(out, vocab, T{});
    out[token] = one;
    args.tokens_out[r] = token;
  }
  return {};
}

// E[g] under q, divided by the sum of q, which is 1 but for rounding. What has no probability counts
// nothing.
template <class T>
PGEST_INLINE double expected(const Acc<T>* q, const T* grad, int64_t vocab) {
  Acc<T> buffer[kConverts<T> ? kBlock : 1];
  double total = 0, mean = 0;
  for (int64_t at = 0; at < vocab; at += kBlock) {
    const int64_t n = std::min(kBlock, vocab - at);
    const Acc<T>* g = load_block(grad + at, n, buffer);
    Acc<T> sum = 0, by_grad = 0;
#pragma omp simd reduction(+ : sum, by_grad)
    for (int64_t i = 0; i < n; ++i) {
      sum += q[at + i];
      by_grad += q[at + i] * counted(q[at + i], g[i]);
    }
    total += sum;
    mean += by_grad;
  }
  return mean / total;
}

// J g into `out`; p is read only where the Jacobian is tempered.
template <bool kTempered, class T>
PGEST_INLINE void product(const Acc<T>* q, const Acc<T>* p, const T* grad, T* out, int64_t vocab,
                          const JacobianRow<Acc<T>>& c) {
  Acc<T> buffer[kConverts<T> ? kBlock : 1];
  for (int64_t at = 0; at < vocab; at += kBlock) {
    const int64_t n = std::min(kBlock, vocab - at);
    const Acc<T>* g = load_block(grad + at, n, buffer);
    Acc<T>* d = block_of(out + at, buffer);
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) {
      const Acc<T> of_q = jacobian_of(q[at + i], g[i], c);
      d[i] = kTempered ? of_q - tempered_of(p[at + i], g[i], c) : of_q;
    }
    store_block(out + at, d, n);
  }
}

template <class T>
PGEST_CLONES Refusal jacobian_rows(const StraightThroughBackward& args, int64_t begin, int64_t end) {
  using A = Acc<T>;
  const LogitRows& in = args.in;
  const int64_t vocab = in.rows.vocab;
  const bool reinmax = args.jacobian == Jacobian::reinmax;
  std::vector<A> q(vocab), p(reinmax && in.temperature ? vocab : 0);
  std::vector<double> pivots;
  for (int64_t r = begin; r < end; ++r) {
    const T* grad = static_cast<const T*>(args.grad) + r * vocab;
    T* out = static_cast<T*>(args.grad_logits) + r * vocab;
    const double temperature = temperature_of(in, r);
    const int64_t token = args.tokens[r];
    if (!fits<Acc<T>>(temperature)) return {Refusal::temperature, r, 0};
    if (token < 0 || token >= vocab) return {Refusal::token, r, 0};
    if (silent(grad, vocab)) {
      std::fill_n(out, vocab, T{});
      continue;
    }
    const T* row = static_cast<const T*>(in.logits) + in.rows.offset(r);
    const bool tempered = reinmax && temperature != 1;
    soft_row(row, NoiseSource<A>{}, r, vocab, temperature, q.data(), pivots);
    if (tempered) soft_row(row, NoiseSource<A>{}, r, vocab, 1.0, p.data(), pivots);
    const double mean_q = expected(q.data(), grad, vocab);
    const double mean_p = tempered ? expected(p.data(), grad, vocab) : mean_q;
    const double chosen = value(grad[token]);
    const JacobianRow<A> c = reinmax ? reinmax_row<A>(mean_q, mean_p, chosen, temperature)
                                     : softmax_row<A>(mean_q, temperature);
    const A of_token = jacobian_of(q[token], static_cast<A>(chosen), c) -
                       (tempered ? tempered_of(p[token], static_cast<A>(chosen), c) : 0) + c.rank_one;
    if (tempered) {
      product<true>(q.data(), p.data(), grad, out, vocab, c);
    } else {
      product<false>(q.data(), p.data(), grad, out, vocab, c);
    }
    round_to(out[token], of_token);
  }
  return {};
}

}  // namespace

Refusal straight_through_cpu(const StraightThroughForward& args, int64_t begin, int64_t end) {
  switch (args.in.dtype) {
    case DType::f64: return forward_rows<double>(args, begin, end);
    case DType::f32: return forward_rows<float>(args, begin, end);
    case DType::bf16: return forward_rows<BFloat16>(args, begin, end);
    case DType::f16: return forward_rows<Half>(args, begin, end);
  }
  return {};
}

Refusal straight_through_backward_cpu(const StraightThroughBackward& args, int64_t begin, int64_t end) {
  switch (args.in.dtype) {
    case DType::f64: return jacobian_rows<double>(args, begin, end);
    case DType::f32: return jacobian_rows<float>(args, begin, end);
    case DType::bf16: return jacobian_rows<BFloat16>(args, begin, end);
    case DType::f16: return jacobian_rows<Half>(args, begin, end);
  }
  return {};
}

}  // namespace pgest
