// gumbel_softmax and straight_through: rows that are distributions, gradients that sum to 0.

#include "../../csrc/kernels/relaxed.h"

#include <algorithm>
#include <vector>

#include "fuzz.h"

namespace fuzz {
namespace {

using namespace pgest;

double tolerance(DType dtype) {
  return dtype == DType::f64 ? 1e-11 : dtype == DType::f32 ? 1e-4 : 4e-2;
}

struct RowSum {
  double sum = 0, size = 0;
};

RowSum row_sum(const Case& c, const Storage& x, int64_t r) {
  RowSum total;
  for (int64_t j = 0; j < c.vocab(); ++j) {
    const double v = x.get(r * c.vocab() + j);
    total.sum += v;
    total.size += std::abs(v);
  }
  return total;
}

// Gradients of 1 / T that f16 cannot hold.
bool overflows(const Case& c, int64_t r) { return c.dtype() == DType::f16 && c.temperature(r) < 1e-4; }

Storage normal(Random& random, DType dtype, int64_t count) {
  Storage x(dtype, count);
  for (int64_t i = 0; i < count; ++i) x.set(i, random.normal());
  return x;
}

}  // namespace

void gumbel_softmax(Random& random) {
  const Case c(random, false);
  const int64_t rows = c.num_rows(), count = rows * c.vocab(), seed = random.integer(-1000, 1000);
  NoisyRows in;
  static_cast<LogitRows&>(in) = c.rows();
  in.mask = nullptr;
  Storage uniforms(statistics(c.dtype()), count), soft(c.dtype(), count), hard(c.dtype(), count);
  for (int64_t i = 0; i < count; ++i) uniforms.set(i, random.chance(0.1) ? 0 : std::min(random.uniform(), 1 - 0x1p-24));
  if (random.chance(0.5)) {
    in.seed = &seed;
  } else {
    in.uniforms = uniforms.data();
  }
  expect(gumbel_softmax_cpu({in, false, soft.data()}, 0, rows).kind == Refusal::none, "refused");
  expect(gumbel_softmax_cpu({in, true, hard.data()}, 0, rows).kind == Refusal::none, "refused");
  const Storage grad = normal(random, c.dtype(), count);
  Storage grad_logits(c.dtype(), count);
  std::vector<double> by_temperature(rows);
  SoftmaxBackward args{in, random.chance(0.5) ? soft.data() : nullptr, grad.data(), grad_logits.data()};
  args.grad_temperature = random.chance(0.5) ? by_temperature.data() : nullptr;
  expect(softmax_backward_cpu(args, 0, rows).kind == Refusal::none, "refused");
  for (int64_t r = 0; r < rows; ++r) {
    const bool regular = c.kind(r) == Kind::ordinary || c.kind(r) == Kind::tied ||
                         c.kind(r) == Kind::impossible_tokens;
    if (!regular) continue;
    const double loose = tolerance(c.dtype());
    expect_close(row_sum(c, soft, r).sum, 1, loose * std::sqrt(c.vocab()), "a soft sample's sum");
    expect(row_sum(c, hard, r).sum == 1, "a hard sample is not one token");
    const RowSum g = row_sum(c, grad_logits, r);
    if (!overflows(c, r))
      expect_close(g.sum, 0, loose * (1 + g.size) / std::min(1.0, c.temperature(r)), "sum of a gradient");
    for (int64_t j = 0; j < c.vocab(); ++j)
      if (c.logit(r, j) == -kInf)
        expect(soft.get(r * c.vocab() + j) == 0 && grad_logits.get(r * c.vocab() + j) == 0,
               "an impossible token has a share");
  }
}

void straight_through(Random& random) {
  const Case c(random, false);
  const int64_t rows = c.num_rows(), count = rows * c.vocab();
  StraightThroughForward forward{c.rows()};
  forward.in.mask = nullptr;
  std::vector<int64_t> tokens(rows), found(rows);
  for (int64_t& t : tokens) t = random.integer(0, c.vocab() - 1);
  Storage out(c.dtype(), count), again(c.dtype(), count), grad_logits(c.dtype(), count);
  forward.tokens = tokens.data();
  forward.tokens_out = found.data();
  forward.out = out.data();
  expect(straight_through_cpu(forward, 0, rows).kind == Refusal::none, "refused");
  StraightThroughForward from_one_hot{forward.in, nullptr, out.data(), found.data(), again.data()};
  expect(straight_through_cpu(from_one_hot, 0, rows).kind == Refusal::none, "refused");
  expect(found == tokens, "the tokens of one-hot vectors");
  const Storage grad = normal(random, c.dtype(), count);
  StraightThroughBackward args{forward.in, tokens.data()};
  args.jacobian = random.pick({Jacobian::straight_through, Jacobian::reinmax});
  args.grad = grad.data();
  args.grad_logits = grad_logits.data();
  expect(straight_through_backward_cpu(args, 0, rows).kind == Refusal::none, "refused");
  for (int64_t r = 0; r < rows; ++r) {
    expect(row_sum(c, out, r).sum == 1, "a sample is not one token");
    if (c.kind(r) != Kind::ordinary && c.kind(r) != Kind::tied) continue;
    const RowSum g = row_sum(c, grad_logits, r);
    if (!overflows(c, r))
      expect_close(g.sum, 0, tolerance(c.dtype()) * (1 + g.size) / std::min(1.0, c.temperature(r)),
                 "sum of a gradient");
  }
}

}  // namespace fuzz
