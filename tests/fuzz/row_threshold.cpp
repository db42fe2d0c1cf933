// row_threshold: what it keeps is what sorting keeps.

#include "../../csrc/kernels/row_threshold.h"

#include <algorithm>
#include <vector>

#include "fuzz.h"

namespace fuzz {

void row_threshold(Random& random) {
  const Case c(random, random.chance(0.5));
  pgest::RowThreshold args{c.rows()};
  args.in.threshold = nullptr;
  if (random.chance(0.6)) args.top_k = random.integer(1, c.vocab() + 2);
  if (random.chance(0.6)) args.top_p = random.chance(0.1) ? 1 : 1 - random.uniform();
  if (random.chance(0.6)) args.log_min_p = std::log(1 - random.uniform());
  std::vector<double> out(c.num_rows());
  args.out = out.data();
  const pgest::Refusal refusal = pgest::row_threshold_cpu(args, 0, c.num_rows());
  expect(refusal.kind == pgest::Refusal::none, "a regular case was refused");
  for (int64_t r = 0; r < c.num_rows(); ++r) {
    if (!c.live(r) || c.kind(r) == Kind::nan || args.in.bias || args.in.softcap != 0) continue;
    std::vector<double> sorted;
    for (int64_t j = 0; j < c.vocab(); ++j) sorted.push_back(c.logit(r, j));
    std::sort(sorted.rbegin(), sorted.rend());
    const int64_t kept = std::count_if(sorted.begin(), sorted.end(), [&](double v) { return v >= out[r]; });
    if (sorted[0] == -kInf || sorted[0] == kInf) continue;
    expect(kept >= 1, "a row without a token that is kept");
    if (args.top_k > c.vocab()) continue;
    const int64_t tied = std::count(sorted.begin(), sorted.end(), sorted[args.top_k - 1]);
    expect(kept <= args.top_k - 1 + tied, "more tokens than top_k and its ties");
    if (args.top_p == 1 && args.log_min_p == -kInf)
      expect(out[r] == sorted[args.top_k - 1] || sorted[args.top_k - 1] == -kInf,
             "the threshold is not the top_k-th logit");
  }
}

}  // namespace fuzz
