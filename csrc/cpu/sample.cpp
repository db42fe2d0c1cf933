// sample on the CPU: one pass over a row makes its statistics and says which block each uniform falls
// into; that block alone is weighed again.

#include <cmath>

#include "../kernels/sample.h"
#include "draw_row.h"

namespace pgest {
namespace {

// The uniforms of a row, in order of the samples.
struct Noise {
  const Sample& args;
  int64_t row;

  double at(int64_t i) const { return args.noise[i * args.in.num_rows + row]; }
  int64_t count() const { return count_of_uniforms(args.method, args.num_samples); }
  bool uniform() const {
    for (int64_t i = 0; i < count(); ++i)
      if (!(at(i) >= 0 && at(i) < 1)) return false;
    return true;
  }
};

// In order of the uniforms, so that a block is weighed once.
template <class R, class A>
PGEST_INLINE void with_replacement(R& row, const Noise& noise, DrawScratch<A>& scratch) {
  const Sample& args = noise.args;
  const auto u = [&](int64_t i) { return noise.at(i); };
  scratch.uniforms.resize(args.num_samples);
  scratch.order.resize(args.num_samples);
  for (int64_t s = 0; s < args.num_samples; ++s)
    scratch.uniforms[s] = uniform_of(args.method, u, s, args.num_samples);
  std::iota(scratch.order.begin(), scratch.order.end(), int64_t{0});
  if (args.num_samples > 1)
    std::sort(scratch.order.begin(), scratch.order.end(), [&](int64_t a, int64_t b) {
      return scratch.uniforms[a] < scratch.uniforms[b];
    });
  const double rest = row.rest();
  for (const int64_t s : scratch.order)
    args.tokens_out[s * args.in.num_rows + noise.row] = row.draw(rest, scratch.uniforms[s]);
}

// The number of tokens that were drawn: fewer than asked for where no more are possible.
template <class R>
PGEST_INLINE int64_t without_replacement(R& row, const Noise& noise, double pivot, double temperature) {
  const Sample& args = noise.args;
  double rest = row.rest(), previous = std::numeric_limits<double>::infinity();
  const double log_all = log(rest), first = pivot;
  for (int64_t s = 0; s < args.num_samples; ++s) {
    if (s > 0) rest = row.rest();
    if (s > 0 && !(rest > kSmallestRest)) {
      pivot = row.template pass<false>().pivot;
      if (pivot == -std::numeric_limits<double>::infinity()) return s;
      rest = row.rest();
    }
    const double log_rest = log(rest) + (pivot - first) / temperature - log_all;
    const int64_t at = s * args.in.num_rows + noise.row;
    previous = next_perturbed(previous, noise.at(s), s > 0 ? log_rest : 0);
    args.perturbed_out[at] = previous;
    args.tokens_out[at] = row.draw(rest, noise.at(args.num_samples + s));
    row.remove(args.tokens_out[at]);
  }
  return args.num_samples;
}

template <bool kEntropy, bool kTransform, class T>
PGEST_INLINE Refusal sample_row(const Sample& args, int64_t r, RowState& state, DrawScratch<Acc<T>>& scratch) {
  using A = Acc<T>;
  const LogitRows& in = args.in;
  const double temperature = in.temperature ? in.temperature[r] : 1.0;
  if (!fits<Acc<T>>(temperature)) return {Refusal::temperature, r, 0};
  const Noise noise{args, r};
  if (!noise.uniform()) return {Refusal::noise, r, 0};
  const Transform<A> by(in, r);
  const T* logits = static_cast<const T*>(in.logits) + in.rows.offset(r);
  const Source<kTransform, T> source{logits, in.rows.vocab, by};
  Row<kTransform, T> row(source, kLog2E / temperature, scratch);
  state = finish(row.template pass<kEntropy>());
  if (!(std::isfinite(state.pivot) && std::isfinite(state.log_s0))) return {Refusal::row_values, r, 0};
  if (args.method == kWithoutReplacement) {
    const int64_t drawn = without_replacement(row, noise, state.pivot, temperature);
    if (drawn < args.num_samples) return {Refusal::possible, r, drawn};
  } else {
    with_replacement(row, noise, scratch);
  }
  for (int64_t s = 0; s < args.num_samples; ++s) {
    const int64_t at = s * in.num_rows + r;
    const double v = value_of(logits, args.tokens_out[at], by);
    static_cast<A*>(args.logp_out)[at] = static_cast<A>(token_logp(v, state, temperature));
  }
  return {};
}

// A row that is not read: token 0, and 0 for all that is said of it.
template <class A>
void leave_out(const Sample& args, int64_t r) {
  for (int64_t s = 0; s < args.num_samples; ++s) {
    const int64_t at = s * args.in.num_rows + r;
    args.tokens_out[at] = 0;
    static_cast<A*>(args.logp_out)[at] = 0;
    if (args.perturbed_out) args.perturbed_out[at] = 0;
  }
}

template <bool kEntropy, bool kTransform, class T>
PGEST_CLONES Refusal sample_rows(const Sample& args, int64_t begin, int64_t end) {
  const LogitRows& in = args.in;
  DrawScratch<Acc<T>> scratch;
  for (int64_t r = begin; r < end; ++r) {
    RowState state{0, 0, 0};
    if (in.mask && !in.mask[r]) {
      leave_out<Acc<T>>(args, r);
    } else {
      const Refusal refusal = sample_row<kEntropy, kTransform, T>(args, r, state, scratch);
      if (refusal.kind != Refusal::none) return refusal;
    }
    if (kEntropy) static_cast<Acc<T>*>(args.entropy_out)[r] = static_cast<Acc<T>>(state.entropy);
    args.state_out[r] = state.pivot;
    args.state_out[in.num_rows + r] = state.log_s0;
    args.state_out[2 * in.num_rows + r] = kEntropy ? state.entropy : 0;
  }
  return {};
}

template <class T>
Refusal samples(const Sample& args, int64_t begin, int64_t end) {
  if (args.entropy)
    return args.in.transformed() ? sample_rows<true, true, T>(args, begin, end)
                                 : sample_rows<true, false, T>(args, begin, end);
  return args.in.transformed() ? sample_rows<false, true, T>(args, begin, end)
                               : sample_rows<false, false, T>(args, begin, end);
}

}  // namespace

Refusal sample_cpu(const Sample& args, int64_t begin, int64_t end) {
  switch (args.in.dtype) {
    case DType::f64: return samples<double>(args, begin, end);
    case DType::f32: return samples<float>(args, begin, end);
    case DType::bf16: return samples<BFloat16>(args, begin, end);
    case DType::f16: return samples<Half>(args, begin, end);
  }
  return {};
}

}  // namespace pgest
