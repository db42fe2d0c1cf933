// Gumbel-softmax on the CPU: one thread per row. Noise is made where it is needed, never stored.

#include "../kernels/relaxed.h"
#include "soft_row.h"

namespace pgest {
namespace {

template <class A>
NoiseSource<A> noise_of(const NoisyRows& in) {
  return {in.seed, static_cast<const A*>(in.uniforms)};
}

// What a row of a call needs beside its own memory.
template <class T>
struct Scratch {
  std::vector<Acc<T>> row;
  std::vector<double> pivots;

  // Memory for a row in the type it is computed in: `out` itself where that is its type.
  Acc<T>* buffer(T* out, int64_t vocab) {
    if constexpr (kConverts<T>) {
      row.resize(vocab);
      return row.data();
    } else {
      return out;
    }
  }
};

template <class T>
PGEST_CLONES Refusal soft_rows(const GumbelSoftmaxForward& args, int64_t begin, int64_t end) {
  const NoisyRows& in = args.in;
  const int64_t vocab = in.rows.vocab;
  Scratch<T> scratch;
  for (int64_t r = begin; r < end; ++r) {
    if (!fits<Acc<T>>(temperature_of(in, r))) return {Refusal::temperature, r, 0};
    const T* row = static_cast<const T*>(in.logits) + in.rows.offset(r);
    T* out = static_cast<T*>(args.out) + r * vocab;
    Acc<T>* soft = scratch.buffer(out, vocab);
    if (!soft_row(row, noise_of<Acc<T>>(in), r, vocab, temperature_of(in, r), soft, scratch.pivots))
      return {Refusal::noise, r, 0};
    store_block(out, soft, vocab);
  }
  return {};
}

// The largest z + g so far, the first of equal ones. A NaN or +inf makes the row NaN.
template <class A>
struct Largest {
  double value = -std::numeric_limits<double>::infinity();
  int64_t at = 0;
  bool nan = false;

  PGEST_INLINE void see(const A* x, int64_t n, const NoisyBlock<A>& block, int64_t begin) {
    int32_t bad = 0;
#pragma omp simd reduction(| : bad)
    for (int64_t i = 0; i < n; ++i) bad |= x[i] != x[i];
    nan = nan || bad;
    if (!(block.pivot > value)) return;
    value = block.pivot;
    at = begin + (std::find(x, x + n, block.largest) - x);
  }
  bool none() const { return nan || value == -std::numeric_limits<double>::infinity(); }
};

template <class T>
PGEST_CLONES Refusal hard_rows(const GumbelSoftmaxForward& args, int64_t begin, int64_t end) {
  using A = Acc<T>;
  const NoisyRows& in = args.in;
  const int64_t vocab = in.rows.vocab;
  A x[kBlock];
  for (int64_t r = begin; r < end; ++r) {
    if (!fits<Acc<T>>(temperature_of(in, r))) return {Refusal::temperature, r, 0};
    const T* row = static_cast<const T*>(in.logits) + in.rows.offset(r);
    Largest<A> largest;
    for (int64_t at = 0; at < vocab; at += kBlock) {
      const int64_t n = std::min(kBlock, vocab - at);
      const NoisyBlock<A> block = noisy_block(row, noise_of<A>(in), r, vocab, at, n, x);
      if (!block.noise_fits) return {Refusal::noise, r, 0};
      largest.see(x, n, block, at);
    }
    T* out = static_cast<T*>(args.out) + r * vocab;
    T rest{}, one{};
    if (largest.none()) round_to(rest, std::numeric_limits<A>::quiet_NaN());
    round_to(one, A(1));
    std::fill_n(out, vocab, rest);
    if (!largest.none()) out[largest.at] = one;
  }
  return {};
}

// Means over a row that its gradient needs: E[g] and, for the temperature's, E[log q]. They are divided
// by the sum of q, which is 1 but for rounding: where one q is nearly 1, g - E[g] would be all rounding.
struct SoftMoments {
  double grad = 0, log_q = 0;
};

template <bool kTemperature, class T, class Q>
PGEST_INLINE SoftMoments moments_of(const Q* soft, const T* grad, int64_t vocab) {
  using A = Acc<T>;
  A q_buffer[kConverts<Q> ? kBlock : 1], g_buffer[kConverts<T> ? kBlock : 1];
  SoftMoments moments;
  double total = 0;
  for (int64_t at = 0; at < vocab; at += kBlock) {
    const int64_t n = std::min(kBlock, vocab - at);
    const A* q = load_block(soft + at, n, q_buffer);
    const A* g = load_block(grad + at, n, g_buffer);
    A sum = 0, by_grad = 0, by_log = 0;
#pragma omp simd reduction(+ : sum, by_grad, by_log)
    for (int64_t i = 0; i < n; ++i) {
      sum += q[i];
      by_grad += q[i] * counted(q[i], g[i]);
      if constexpr (kTemperature) by_log += q[i] * log_or_zero(q[i]);
    }
    total += sum;
    moments.grad += by_grad;
    moments.log_q += by_log;
  }
  return {moments.grad / total, moments.log_q / total};
}

// J g of one row, and the covariance of g and log q where the temperature's gradient needs it.
template <bool kTemperature, class T, class Q>
PGEST_INLINE double backward_row(const Q* soft, const T* grad, T* out, int64_t vocab,
                                 double temperature) {
  using A = Acc<T>;
  const SoftMoments moments = moments_of<kTemperature>(soft, grad, vocab);
  const JacobianRow<A> c = softmax_row<A>(moments.grad, temperature);
  const A center = static_cast<A>(moments.log_q);
  A q_buffer[kConverts<Q> ? kBlock : 1], g_buffer[kConverts<T> ? kBlock : 1];
  double covariance = 0;
  for (int64_t at = 0; at < vocab; at += kBlock) {
    const int64_t n = std::min(kBlock, vocab - at);
    const A* q = load_block(soft + at, n, q_buffer);
    const A* g = load_block(grad + at, n, g_buffer);
    A* d = block_of(out + at, g_buffer);
    A sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; ++i) {
      const A product = jacobian_of(q[i], g[i], c);
      if constexpr (kTemperature) sum += product * (log_or_zero(q[i]) - center);
      d[i] = product;
    }
    covariance += sum;
    store_block(out + at, d, n);
  }
  return covariance;
}

template <bool kTemperature, class T>
PGEST_CLONES Refusal backward_rows(const SoftmaxBackward& args, int64_t begin, int64_t end) {
  using A = Acc<T>;
  const NoisyRows& in = args.in;
  const int64_t vocab = in.rows.vocab;
  Scratch<T> scratch;
  for (int64_t r = begin; r < end; ++r) {
    const double temperature = temperature_of(in, r);
    const T* grad = static_cast<const T*>(args.grad) + r * vocab;
    T* out = static_cast<T*>(args.grad_logits) + r * vocab;
    double covariance = 0;
    if (silent(grad, vocab)) {
      std::fill_n(out, vocab, T{});
    } else if (args.soft) {
      const T* soft = static_cast<const T*>(args.soft) + r * vocab;
      covariance = backward_row<kTemperature>(soft, grad, out, vocab, temperature);
    } else {
      const T* row = static_cast<const T*>(in.logits) + in.rows.offset(r);
      A* soft = scratch.buffer(out, vocab);
      if (!soft_row(row, noise_of<A>(in), r, vocab, temperature, soft, scratch.pivots))
        return {Refusal::noise, r, 0};
      covariance = backward_row<kTemperature>(soft, grad, out, vocab, temperature);
    }
    if (kTemperature) args.grad_temperature[r] = -covariance;
  }
  return {};
}

template <class T>
Refusal forward(const GumbelSoftmaxForward& args, int64_t begin, int64_t end) {
  return args.hard ? hard_rows<T>(args, begin, end) : soft_rows<T>(args, begin, end);
}

template <class T>
Refusal backward(const SoftmaxBackward& args, int64_t begin, int64_t end) {
  return args.grad_temperature ? backward_rows<true, T>(args, begin, end)
                               : backward_rows<false, T>(args, begin, end);
}

}  // namespace

Refusal gumbel_softmax_cpu(const GumbelSoftmaxForward& args, int64_t begin, int64_t end) {
  switch (args.in.dtype) {
    case DType::f64: return forward<double>(args, begin, end);
    case DType::f32: return forward<float>(args, begin, end);
    case DType::bf16: return forward<BFloat16>(args, begin, end);
    case DType::f16: return forward<Half>(args, begin, end);
  }
  return {};
}

Refusal softmax_backward_cpu(const SoftmaxBackward& args, int64_t begin, int64_t end) {
  switch (args.in.dtype) {
    case DType::f64: return backward<double>(args, begin, end);
    case DType::f32: return backward<float>(args, begin, end);
    case DType::bf16: return backward<BFloat16>(args, begin, end);
    case DType::f16: return backward<Half>(args, begin, end);
  }
  return {};
}

}  // namespace pgest
