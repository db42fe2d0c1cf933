// token_stats: what must hold of any row, and the same numbers as in f64.

#include "../../csrc/kernels/token_stats.h"

#include <vector>

#include "fuzz.h"

namespace fuzz {
namespace {

// One call of the forward, with outputs of exactly their size.
struct Forward {
  Storage logp, entropy, lse;
  std::vector<double> state;

  Forward(const pgest::TokenStatsInput& in, bool with_entropy)
      : logp(statistics(in.dtype), in.num_samples * in.num_rows),
        entropy(statistics(in.dtype), with_entropy ? in.num_rows : 0),
        lse(statistics(in.dtype), in.num_rows),
        state(3 * in.num_rows) {
    pgest::TokenStatsForward args{in, with_entropy};
    args.logp_out = logp.data();
    args.entropy_out = entropy.data();
    args.lse_out = lse.data();
    args.state_out = state.data();
    refusal = pgest::token_stats_forward_cpu(args, 0, in.num_rows);
  }
  pgest::Refusal refusal;
};

pgest::TokenStatsInput input(const pgest::LogitRows& rows, const std::vector<int64_t>& tokens) {
  pgest::TokenStatsInput in;
  static_cast<pgest::LogitRows&>(in) = rows;
  in.num_samples = rows.num_rows ? static_cast<int64_t>(tokens.size()) / rows.num_rows : 0;
  in.tokens = tokens.data();
  return in;
}

std::vector<int64_t> draw_tokens(Random& random, const Case& c, int64_t samples) {
  std::vector<int64_t> tokens(samples * c.num_rows());
  for (size_t i = 0; i < tokens.size(); ++i)
    tokens[i] = c.live(i % c.num_rows()) ? random.integer(0, c.vocab() - 1) : -random.integer(1, 9);
  return tokens;
}

// In units of the last place of the numbers that are subtracted.
double tolerance(const Case& c, double magnitude) {
  const double eps = c.dtype() == pgest::DType::f64 ? 1e-13 : 4e-6;
  return eps * (10 + std::abs(magnitude));
}

void check_forward(const Case& c, const pgest::TokenStatsInput& in, bool entropy) {
  const Forward ours(in, entropy);
  pgest::TokenStatsInput exact_in = in;
  static_cast<pgest::LogitRows&>(exact_in) = c.exact();
  const Forward exact(exact_in, entropy);
  expect(ours.refusal.kind == pgest::Refusal::none, "a regular case was refused");
  for (int64_t r = 0; r < c.num_rows(); ++r) {
    const double size = c.kind(r) == Kind::huge ? 1e31 : 300 / c.temperature(r);
    expect_close(ours.lse.get(r), exact.lse.get(r), tolerance(c, size), "lse");
    for (int64_t s = 0; s < in.num_samples; ++s) {
      const int64_t i = s * c.num_rows() + r;
      expect_close(ours.logp.get(i), exact.logp.get(i), tolerance(c, size), "logp");
      expect(!(ours.logp.get(i) > tolerance(c, 1)), "a log-probability above 0");
    }
    if (!entropy) continue;
    const double h = ours.entropy.get(r), most = std::log(static_cast<double>(c.vocab()));
    expect_close(h, exact.entropy.get(r), tolerance(c, size), "entropy");
    if (c.regular(r)) expect(h > -tolerance(c, 1) && h < most + tolerance(c, most), "entropy range");
  }
}

void check_backward(Random& random, Case& c, const pgest::TokenStatsInput& in, bool entropy) {
  const Forward forward(in, entropy);
  const pgest::DType dtype = statistics(c.dtype());
  Storage by_logp(dtype, in.num_samples * c.num_rows()), by_entropy(dtype, c.num_rows()),
      by_lse(dtype, c.num_rows());
  for (int64_t i = 0; i < in.num_samples * c.num_rows(); ++i) by_logp.set(i, random.normal());
  for (int64_t r = 0; r < c.num_rows(); ++r) {
    by_entropy.set(r, random.chance(0.8) ? random.normal() : 0);
    by_lse.set(r, random.chance(0.8) ? random.normal() : 0);
  }
  Storage grad(c.dtype(), c.num_rows() * c.vocab());
  std::vector<double> by_temperature(c.num_rows());
  pgest::TokenStatsBackward args{in};
  args.state = forward.state.data();
  args.grad_logp = by_logp.data();
  args.grad_entropy = entropy ? by_entropy.data() : nullptr;
  args.grad_lse = by_lse.data();
  args.grad_logits = grad.data();
  args.grad_temperature = random.chance(0.5) ? by_temperature.data() : nullptr;
  const pgest::Refusal refusal = pgest::token_stats_backward_cpu(args, 0, c.num_rows());
  expect(refusal.kind == pgest::Refusal::none, "a regular backward was refused");
  for (int64_t r = 0; r < c.num_rows(); ++r) {
    double sum = 0, size = 0;
    for (int64_t j = 0; j < c.vocab(); ++j) {
      const double g = grad.get(r * c.vocab() + j);
      sum += g;
      size += std::abs(g);
      if (!c.live(r)) expect(g == 0, "a masked row has a gradient");
    }
    if (!c.regular(r) || c.kind(r) == Kind::huge) continue;
    const double eps = c.dtype() == pgest::DType::f64 ? 1e-12 : c.dtype() == pgest::DType::f32 ? 1e-4 : 2e-2;
    // A shift of all logits changes the lse alone.
    expect_close(sum, by_lse.get(r) / c.temperature(r), eps * (1 + size), "sum of a row's gradient");
  }
}

}  // namespace

void token_stats(Random& random) {
  Case c(random);
  const std::vector<int64_t> tokens = draw_tokens(random, c, random.integer(0, 5));
  const bool entropy = random.chance(0.6);
  pgest::TokenStatsInput in = input(c.rows(), tokens);
  check_forward(c, in, entropy);
  check_backward(random, c, in, entropy);
  if (tokens.empty()) return;
  std::vector<int64_t> broken = tokens;  // one token outside the vocabulary is refused by its row
  const int64_t at = random.integer(0, static_cast<int64_t>(tokens.size()) - 1);
  broken[at] = random.pick<int64_t>({-1, c.vocab(), std::numeric_limits<int64_t>::min(),
                                     std::numeric_limits<int64_t>::max()});
  const Forward refused(input(c.rows(), broken), entropy);
  if (c.live(at % c.num_rows()))
    expect(refused.refusal.kind == pgest::Refusal::token && refused.refusal.row == at % c.num_rows(),
           "a token outside the vocabulary was not refused");
}

}  // namespace fuzz
