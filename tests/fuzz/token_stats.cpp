// token_stats: what must hold of any row, and the same numbers as in f64.

#include "../../csrc/kernels/token_stats.h"

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
  Refusal refusal;

  Forward(const TokenStatsInput& in, const Beside& b)
      : argmax(in.num_rows), rank(in.num_samples * in.num_rows), state(kPairState * in.num_rows) {
    TokenStatsForward args{in};
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

double tolerance(const Case& c, double size) {
  const double eps = c.dtype() == DType::f64 ? 1e-12 : 1e-5;
  return eps * (10 + std::abs(size));
}

void check_row(const Case& c, const Beside& b, const Forward& ours, const Forward& exact, int64_t r) {
  const double size = c.kind(r) == Kind::huge ? 1e31 : 300 / c.temperature(r);
  for (int k = 0; k < kArgmax; ++k) {
    if (!asks(b, k)) continue;
    for (int64_t s = 0; s < (k == kLogp ? b.num_samples : 1); ++s) {
      const int64_t i = s * c.num_rows() + r;
      const double x = ours.out[k].get(i);
      // A probability that only f64 can tell from 0 may meet an impossible token of the other policy.
      if ((k == kKl || k == kReverseKl) && exact.out[k].get(i) == kInf) continue;
      expect_close(x, exact.out[k].get(i), tolerance(c, size), "a statistic");
      if (!c.live(r)) expect(x == 0, "a masked row has a statistic");
      if (k == kLogp) expect(!(x > tolerance(c, 1)), "a log-probability above 0");
      if (k == kKl || k == kReverseKl) expect(!(x < -tolerance(c, size)), "a negative divergence");
      if (k == kEntropy)
        expect(!(x < -tolerance(c, size) || x > std::log(c.vocab()) + tolerance(c, size)),
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

void check_backward(Random& random, const Case& c, const Beside& b, const Forward& forward) {
  TokenStatsBackward args{input(c.rows(), b, false)};
  Storage grads[kArgmax];
  for (int k = 0; k < kArgmax; ++k) {
    if (!asks(b, k) || random.chance(0.2)) continue;
    const int64_t count = (k == kLogp ? b.num_samples : 1) * c.num_rows();
    grads[k] = Storage(statistics(c.dtype()), count);
    for (int64_t i = 0; i < count; ++i) grads[k].set(i, random.chance(0.8) ? random.normal() : 0);
    args.grad[k] = grads[k].data();
  }
  Storage grad(c.dtype(), c.num_rows() * c.vocab());
  std::vector<double> by_temperature(c.num_rows());
  args.state = forward.state.data();
  args.grad_logits = grad.data();
  args.grad_temperature = random.chance(0.5) ? by_temperature.data() : nullptr;
  const Refusal refusal = args.plain() ? token_stats_backward_cpu(args, 0, c.num_rows())
                                       : token_stats_full_backward_cpu(args, 0, c.num_rows());
  expect(refusal.kind == Refusal::none, "a regular backward was refused");
  for (int64_t r = 0; r < c.num_rows(); ++r) {
    double sum = 0, size = 0;
    for (int64_t j = 0; j < c.vocab(); ++j) {
      const double g = grad.get(r * c.vocab() + j);
      sum += g;
      size += std::abs(g);
      if (!c.live(r)) expect(g == 0, "a masked row has a gradient");
    }
    if (!c.regular(r) || c.kind(r) == Kind::huge || c.squashed() || !std::isfinite(size)) continue;
    const double eps = c.dtype() == DType::f64 ? 1e-11 : c.dtype() == DType::f32 ? 1e-4 : 3e-2;
    // A shift of all logits changes the lse alone.
    const double by_lse = args.grad[kLse] ? grads[kLse].get(r) / c.temperature(r) : 0;
    expect_close(sum, by_lse, eps * (1 + size), "sum of a row's gradient");
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
