// token_stats: what must hold of any row, and the same numbers as in f64.

#include "../../csrc/kernels/token_stats.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "fuzz.h"

namespace fuzz {
namespace {

using namespace pgest;

// What stands beside the logits, in the case's dtypes and in f64, packed.
struct Beside {
  Storage reference, exact_reference, values, exact_values;
  std::vector<int64_t> tokens, value_tokens;
  int64_t num_samples = 0, num_values = 0;  // num_values 0: dense values
  unsigned outputs = 0;
};

constexpr const char* kNames[] = {"logp", "entropy", "lse", "kl", "reverse_kl", "value"};

bool asks(const Beside& b, int output) { return b.outputs >> output & 1; }

Storage packed(DType dtype, int64_t count, Storage& exact, Random& random, double impossible) {
  Storage storage(dtype, count);
  exact = Storage(DType::f64, count);
  for (int64_t i = 0; i < count; ++i) {
    storage.set(i, random.chance(impossible) ? -kInf : 3 * random.normal());
    exact.set(i, storage.get(i));
  }
  return storage;
}

Beside beside(Random& random, const Case& c) {
  Beside b;
  const int64_t rows = c.num_rows();
  b.outputs = static_cast<unsigned>(random.integer(1, (1 << kNumOutputs) - 1));
  b.num_samples = random.integer(1, 4);
  b.num_values = random.chance(0.5) ? random.integer(1, 3) : 0;
  for (int64_t i = 0; i < b.num_samples * rows; ++i)
    b.tokens.push_back(c.live(i % rows) ? random.integer(0, c.vocab() - 1) : -random.integer(1, 9));
  for (int64_t i = 0; i < b.num_values * rows; ++i)
    b.value_tokens.push_back(random.integer(0, c.vocab() - 1));
  const bool sure = random.chance(0.7);
  b.reference = packed(c.dtype(), rows * c.vocab(), b.exact_reference, random, sure ? 0 : 0.1);
  const DType dtype = b.num_values || random.chance(0.5) ? statistics(c.dtype()) : c.dtype();
  b.values = packed(dtype, rows * (b.num_values ? b.num_values : c.vocab()), b.exact_values, random, 0);
  return b;
}

TokenStatsInput input(const LogitRows& rows, const Beside& b, bool exact) {
  TokenStatsInput in;
  static_cast<LogitRows&>(in) = rows;
  in.num_samples = b.num_samples;
  in.tokens = b.tokens.data();
  Rows flat{rows.rows.vocab, 1, {rows.num_rows}, {rows.rows.vocab}};
  if (asks(b, kKl) || asks(b, kReverseKl)) {
    in.reference_rows = flat;
    in.reference_logits = exact ? b.exact_reference.data() : b.reference.data();
  }
  if (asks(b, kValue)) {
    const Storage& values = exact ? b.exact_values : b.values;
    in.value_rows = flat;
    in.values = values.data();
    in.values_dtype = values.dtype();
    in.num_values = b.num_values;
    in.value_tokens = b.num_values ? b.value_tokens.data() : nullptr;
  }
  return in;
}

// One call of the forward, with outputs of exactly their size.
struct Forward {
  Storage out[kArgmax];
  std::vector<int64_t> argmax, rank;
  std::vector<double> state;
  TokenStatsForward args;
  Refusal refusal;

  Forward(const TokenStatsInput& in, const Beside& b)
      : argmax(in.num_rows), rank(in.num_samples * in.num_rows), state(kPairState * in.num_rows), args{in} {
    for (int k = 0; k < kArgmax; ++k) {
      if (!asks(b, k)) continue;
      out[k] = Storage(statistics(in.dtype), (k == kLogp ? in.num_samples : 1) * in.num_rows);
      args.out[k] = out[k].data();
    }
    if (asks(b, kArgmax)) args.argmax_out = argmax.data();
    if (asks(b, kRank)) args.rank_out = rank.data();
    state.resize((args.pair() ? kPairState : kRowState) * in.num_rows);
    args.state_out = state.data();
    refusal = args.plain() ? token_stats_forward_cpu(args, 0, in.num_rows)
                           : token_stats_full_forward_cpu(args, 0, in.num_rows);
  }
};

// The values themselves are rounded where something is done to the logits: so much in nats.
double rounding_of_values(const Case& c, int64_t r) {
  const double of_values = c.kind(r) == Kind::huge ? 1e31 : 300;
  return c.transformed() ? (c.dtype() == DType::f64 ? 1e-14 : 1e-6) * of_values / c.temperature(r) : 0;
}

// Of a statistic `x` in f64.
double tolerance(const Case& c, double x, int64_t r) {
  return (c.dtype() == DType::f64 ? 1e-12 : 5e-6) * (10 + std::abs(x)) + rounding_of_values(c, r);
}

// A divergence that is infinite in f64 is so in f32 unless the probabilities of all tokens that make it
// so are too small for f32.
bool underflows(const Case& c, const Beside& b, int64_t r, int k) {
  if (c.dtype() == DType::f64) return false;
  double most = -kInf, other_most = -kInf;
  const auto v = [&](int64_t j) { return c.value(r, j); };
  const auto q = [&](int64_t j) { return b.exact_reference.get(r * c.vocab() + j); };
  for (int64_t j = 0; j < c.vocab(); ++j) {
    const double own = k == kKl ? v(j) : q(j), other = k == kKl ? q(j) : v(j);
    most = std::max(most, own);
    if (other == -kInf) other_most = std::max(other_most, own);
  }
  return (other_most - most) / c.temperature(r) < -80;
}

void check_row(const Case& c, const Beside& b, const Forward& ours, const Forward& exact, int64_t r) {
  for (int k = 0; k < kArgmax; ++k) {
    if (!asks(b, k)) continue;
    for (int64_t s = 0; s < (k == kLogp ? b.num_samples : 1); ++s) {
      const int64_t i = s * c.num_rows() + r;
      const double x = ours.out[k].get(i), wide = exact.out[k].get(i);
      const double truth = c.dtype() == DType::f64 ? wide : static_cast<float>(wide);
      const double slack = tolerance(c, truth, r);
      if ((k == kKl || k == kReverseKl) && truth == kInf && underflows(c, b, r, k)) continue;
      // So cold that the rounding of a value decides which token is the only one.
      if (k >= kKl && c.transformed() && c.temperature(r) < 1e-6) continue;
      expect_close(x, truth, slack, kNames[k]);
      if (!c.live(r)) expect(x == 0, "a masked row has a statistic");
      if (k == kLogp) expect(!(x > slack), "a log-probability above 0");
      if (k == kKl || k == kReverseKl) expect(!(x < -slack), "a negative divergence");
      if (k == kEntropy)
        expect(!(x < -slack || x > std::log(c.vocab()) + slack),
               "an entropy outside of its range");
    }
  }
  if (!c.live(r)) return;
  if (asks(b, kArgmax)) expect(ours.argmax[r] >= 0 && ours.argmax[r] < c.vocab(), "argmax range");
  if (!asks(b, kRank)) return;
  for (int64_t s = 0; s < b.num_samples; ++s) {
    const int64_t i = s * c.num_rows() + r;
    expect(ours.rank[i] >= 0 && ours.rank[i] <= c.vocab(), "rank range");
    if (asks(b, kArgmax) && c.regular(r) && ours.argmax[r] == b.tokens[i])
      expect(ours.rank[i] == 0, "the argmax is not first");
  }
}

void check_forward(const Case& c, const Beside& b, const Forward& ours) {
  const Forward exact(input(c.exact(), b, true), b);
  expect(ours.refusal.kind == Refusal::none, "a regular case was refused");
  for (int64_t r = 0; r < c.num_rows(); ++r) check_row(c, b, ours, exact, r);
}

// Upstream gradients, the same in the case's dtype and in f64, and what they become.
struct Backward {
  Storage grads[kArgmax], grad;
  std::vector<double> by_temperature;
  TokenStatsBackward args;

  Backward(const TokenStatsInput& in, const Beside& b, const std::vector<double>& weights,
           unsigned given, bool with_temperature, const Forward& forward)
      : grad(in.dtype, in.num_rows * in.rows.vocab), by_temperature(in.num_rows), args{in} {
    for (int k = 0; k < kArgmax; ++k) {
      if (!asks(b, k) || !(given >> k & 1)) continue;
      const int64_t count = (k == kLogp ? in.num_samples : 1) * in.num_rows;
      grads[k] = Storage(statistics(in.dtype), count);
      for (int64_t i = 0; i < count; ++i) grads[k].set(i, weights[k * in.num_samples * in.num_rows + i]);
      args.grad[k] = grads[k].data();
    }
    args.state = forward.state.data();
    args.grad_logits = grad.data();
    args.grad_temperature = with_temperature ? by_temperature.data() : nullptr;
    const Refusal refusal = args.plain() ? token_stats_backward_cpu(args, 0, in.num_rows)
                                         : token_stats_full_backward_cpu(args, 0, in.num_rows);
    expect(refusal.kind == Refusal::none, "a regular backward was refused");
  }
};

// What the errors of a row's gradient grow with beside its largest entry: the terms that cancel in it.
double size_of_terms(const Case& c, const Beside& b, const Backward& exact, const Forward& forward,
                     int64_t r) {
  double size = 0;
  for (int k = 0; k < kArgmax; ++k)
    for (int64_t s = 0; s < (k == kLogp ? b.num_samples : 1); ++s) {
      const int64_t i = s * c.num_rows() + r;
      if (exact.grads[k].data())
        size += std::abs(exact.grads[k].get(i)) * (k < kKl ? 1 : 1 + std::abs(forward.out[k].get(i)));
    }
  return size / c.temperature(r);
}

void check_gradient(const Case& c, const Backward& ours, const Backward& exact, double terms, int64_t r,
                    bool with_temperature) {
  const double of_values = rounding_of_values(c, r);
  if (of_values > 1e-2) return;  // so cold that it decides which token is the only one
  const bool wide = c.dtype() == DType::f64, half = c.dtype() == DType::bf16 || c.dtype() == DType::f16;
  double largest = 0;
  for (int64_t j = 0; j < c.vocab(); ++j)
    largest = std::max(largest, std::abs(exact.grad.get(r * c.vocab() + j)));
  if (!(largest < (c.dtype() == DType::f16 ? 6e4 : 1e36)) || !std::isfinite(terms)) return;
  const double eps = (wide ? 1e-10 : 1e-5) + of_values;
  const double storage = c.dtype() == DType::bf16 ? 0x1p-8 : half ? 0x1p-10 : 0;
  const double tiny = c.dtype() == DType::f16 ? 0x1p-24 : 1e-37;
  for (int64_t j = 0; j < c.vocab(); ++j)
    expect_close(ours.grad.get(r * c.vocab() + j), exact.grad.get(r * c.vocab() + j),
                 (eps + storage) * largest + eps * terms + tiny, "a gradient");
  if (with_temperature && std::abs(exact.by_temperature[r]) < 1e36)  // as f32 moments can hold
    expect_close(ours.by_temperature[r], exact.by_temperature[r],
                 eps * (std::abs(exact.by_temperature[r]) + terms * (1 + 300 / c.temperature(r))),
                 "a temperature's gradient");
}

// Forward and backward in one go, over what they made one after the other.
void check_in_one_go(const Case& c, const Forward& forward, const Backward& backward, const Forward& to,
                     Backward& into) {
  const int64_t rows = c.num_rows(), count = rows * c.vocab();
  for (int64_t i = 0; i < count; ++i) into.grad.set(i, 7);
  into.args.state = to.state.data();
  expect(token_stats_gradient_cpu({to.args, into.args}, 0, rows).kind == Refusal::none,
         "a regular case was refused in one go");
  expect(to.state.empty() || !std::memcmp(to.state.data(), forward.state.data(), to.state.size() * sizeof(double)),
         "another state in one go");
  for (int64_t i = 0; i < count; ++i) {
    const double a = into.grad.get(i), b = backward.grad.get(i);
    expect(a == b || (std::isnan(a) && std::isnan(b)), "another gradient in one go");
  }
}

void check_backward(Random& random, const Case& c, const Beside& b, const Forward& forward) {
  std::vector<double> weights;
  for (int64_t i = 0; i < kArgmax * b.num_samples * c.num_rows(); ++i)
    weights.push_back(random.chance(0.8) ? static_cast<float>(random.normal()) : 0);
  const auto given = static_cast<unsigned>(random.integer(0, (1 << kArgmax) - 1));
  const bool with_temperature = random.chance(0.5);
  const TokenStatsInput own = input(c.rows(), b, false), wide = input(c.exact(), b, true);
  const Backward ours(own, b, weights, given, with_temperature, forward);
  const Forward again(own, b), exact_forward(wide, b);
  Backward into(own, b, weights, given, with_temperature, again);
  check_in_one_go(c, forward, ours, again, into);
  const Backward exact(wide, b, weights, given, with_temperature, exact_forward);
  for (int64_t r = 0; r < c.num_rows(); ++r) {
    double sum = 0, size = 0;
    for (int64_t j = 0; j < c.vocab(); ++j) {
      const double g = ours.grad.get(r * c.vocab() + j);
      sum += g;
      size += std::abs(g);
      if (!c.live(r)) expect(g == 0, "a masked row has a gradient");
    }
    if (!c.regular(r) || c.kind(r) == Kind::huge || !std::isfinite(size)) continue;
    const double eps = c.dtype() == DType::f64 ? 1e-11 : c.dtype() == DType::f32 ? 1e-4 : 3e-2;
    // A shift of all logits changes the lse alone.
    const double by_lse = exact.grads[kLse].data() ? exact.grads[kLse].get(r) / c.temperature(r) : 0;
    const double terms = size_of_terms(c, b, exact, forward, r);
    if (!std::isfinite(terms)) continue;
    if (!c.squashed() && !c.restricted())  // what is excluded keeps no weight of its own
      expect_close(sum, by_lse, eps * (1 + size + terms), "sum of a row's gradient");
    check_gradient(c, ours, exact, terms, r, with_temperature);
  }
}

}  // namespace

void token_stats(Random& random) {
  const Case c(random, random.chance(0.5));
  Beside b = beside(random, c);
  const Forward forward(input(c.rows(), b, false), b);
  check_forward(c, b, forward);
  check_backward(random, c, b, forward);
  if (b.tokens.empty()) return;
  // One token outside the vocabulary is refused by its row.
  const int64_t at = random.integer(0, static_cast<int64_t>(b.tokens.size()) - 1);
  const int64_t row = at % c.num_rows();
  b.tokens[at] = random.pick<int64_t>({-1, c.vocab(), std::numeric_limits<int64_t>::min(),
                                       std::numeric_limits<int64_t>::max()});
  const Forward refused(input(c.rows(), b, false), b);
  if (c.live(row))
    expect(refused.refusal.kind == Refusal::token && refused.refusal.row == row,
           "a token outside the vocabulary was not refused");
}

}  // namespace fuzz
