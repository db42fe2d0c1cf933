// sample: possible tokens with their own log-probabilities, distinct ones where they must be.

#include "../../csrc/kernels/sample.h"

#include <algorithm>
#include <vector>

#include "fuzz.h"

namespace fuzz {
namespace {

using namespace pgest;

// Number of tokens of a row that may be drawn; 0 also for a row that must be refused.
int64_t possible(const Case& c, const LogitRows& in, int64_t r) {
  if (c.kind(r) == Kind::nan || c.kind(r) == Kind::infinite) return 0;
  int64_t count = 0;
  for (int64_t j = 0; j < c.vocab(); ++j) {
    const double v = c.logit(r, j);
    count += v != -kInf && !(in.threshold && v < in.threshold[r]);
  }
  return count;
}

void check_row(const Case& c, const Sample& args, const Storage& logp, int64_t r) {
  std::vector<int64_t> seen;
  double previous = kInf;
  for (int64_t s = 0; s < args.num_samples; ++s) {
    const int64_t i = s * c.num_rows() + r, token = args.tokens_out[i];
    expect(token >= 0 && token < c.vocab(), "a token outside the vocabulary");
    if (!c.live(r)) continue;
    expect(c.logit(r, token) != -kInf, "an impossible token was drawn");
    expect(logp.get(i) != -kInf && !(logp.get(i) > 1e-4), "a drawn token's log-probability");
    if (args.method != kWithoutReplacement) continue;
    expect(args.perturbed_out[i] <= previous, "perturbed log-probabilities do not fall");
    previous = args.perturbed_out[i];
    expect(std::count(seen.begin(), seen.end(), token) == 0, "a token was drawn twice");
    seen.push_back(token);
  }
}

}  // namespace

void sample(Random& random) {
  const Case c(random, random.chance(0.3));
  Sample args{c.rows()};
  if (args.in.bias || args.in.softcap != 0) args.in.threshold = nullptr;  // `possible` knows z alone
  args.method = random.pick({kIndependent, kAntithetic, kStratified, kWithoutReplacement});
  args.num_samples = random.integer(1, 5);
  args.entropy = random.chance(0.5);
  const int64_t rows = c.num_rows(), count = args.num_samples * rows;
  const int64_t drawn = args.method == kAntithetic           ? (args.num_samples + 1) / 2 * rows
                        : args.method == kWithoutReplacement ? 2 * count
                                                             : count;
  std::vector<double> noise(drawn), perturbed(count), state(3 * rows);
  for (double& u : noise) u = random.pick({0.0, 1 - 0x1p-53, random.uniform(), random.uniform()});
  std::vector<int64_t> tokens(count);
  Storage logp(statistics(c.dtype()), count), entropy(statistics(c.dtype()), rows);
  args.noise = noise.data();
  args.tokens_out = tokens.data();
  args.logp_out = logp.data();
  args.entropy_out = args.entropy ? entropy.data() : nullptr;
  args.perturbed_out = args.method == kWithoutReplacement ? perturbed.data() : nullptr;
  args.state_out = state.data();
  const Refusal refusal = sample_cpu(args, 0, rows);
  const int64_t least = args.method == kWithoutReplacement ? args.num_samples : 1;
  for (int64_t r = 0; r < rows; ++r) {
    if (!c.live(r) || possible(c, args.in, r) >= least) continue;
    expect(refusal.kind != Refusal::none && refusal.row <= r, "a row without enough was not refused");
    return;
  }
  expect(refusal.kind == Refusal::none, "a regular case was refused");
  for (int64_t r = 0; r < rows; ++r) check_row(c, args, logp, r);
}

}  // namespace fuzz
