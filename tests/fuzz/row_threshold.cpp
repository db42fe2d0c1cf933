// row_threshold: what it keeps is what sorting and summing keep.

#include "../../csrc/kernels/row_threshold.h"

#include <algorithm>
#include <vector>

#include "../../csrc/cpu/values.h"
#include "fuzz.h"

namespace fuzz {

namespace {

// The values of a row as the kernel rounds them: in f64 an edge would lie beside them.
template <class T>
std::vector<double> values_as(const pgest::LogitRows& in, int64_t r) {
  const pgest::Transform<typename pgest::Accumulate<T>::type> by(in, r);
  const T* row = static_cast<const T*>(in.logits) + in.rows.offset(r);
  std::vector<double> values;
  for (int64_t j = 0; j < in.rows.vocab; ++j) values.push_back(pgest::value_of(row, j, by));
  return values;
}

std::vector<double> values(const pgest::LogitRows& in, int64_t r) {
  switch (in.dtype) {
    case pgest::DType::f64: return values_as<double>(in, r);
    case pgest::DType::f32: return values_as<float>(in, r);
    case pgest::DType::bf16: return values_as<pgest::BFloat16>(in, r);
    case pgest::DType::f16: return values_as<pgest::Half>(in, r);
  }
  return {};
}

// Of a row sorted from its largest value: what is kept is all that the restrictions leave, and no
// more. A mass within 1e-6 of the edge may lie on either side.
void check_nucleus(const Case& c, const pgest::RowThreshold& args, const std::vector<double>& sorted,
                   int64_t kept, int64_t r) {
  constexpr double kSlack = 1e-6;
  const double by_k = args.top_k <= c.vocab() ? sorted[args.top_k - 1] : -kInf;
  const auto mass = [&](double v) { return std::exp((v - sorted[0]) / c.temperature(r)); };
  const auto above = [&](double v) {
    double sum = 0;
    for (const double w : sorted) sum += w > v ? mass(w) : 0;
    return sum;
  };
  double total = 0;
  for (const double v : sorted) total += v >= by_k ? mass(v) : 0;
  const double target = args.top_p * total, min_p = std::exp(args.log_min_p);
  const double last = sorted[kept - 1];
  expect(last >= by_k, "a token below the top_k-th is kept");
  if (args.top_p < 1) expect(above(last) <= target + kSlack * total, "more is kept than top_p");
  expect(mass(last) >= min_p * (1 - kSlack), "a token below min_p is kept");
  if (kept == c.vocab() || sorted[kept] == -kInf) return;
  const double next = sorted[kept];
  expect(next < by_k || (args.top_p < 1 && above(next) >= target - kSlack * total) ||
             mass(next) <= min_p * (1 + kSlack),
         "a token is lost that no restriction excludes");
}

}  // namespace

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
    if (!c.live(r) || c.kind(r) == Kind::nan) continue;
    std::vector<double> sorted = values(args.in, r);
    std::sort(sorted.rbegin(), sorted.rend());
    const int64_t kept = std::count_if(sorted.begin(), sorted.end(), [&](double v) { return v >= out[r]; });
    if (sorted[0] == -kInf || sorted[0] == kInf) continue;
    expect(kept >= 1, "a row without a token that is kept");
    if (out[r] > -kInf) check_nucleus(c, args, sorted, kept, r);
    if (args.top_k > c.vocab()) continue;
    const int64_t tied = std::count(sorted.begin(), sorted.end(), sorted[args.top_k - 1]);
    expect(kept <= args.top_k - 1 + tied, "more tokens than top_k and its ties");
    if (args.top_p == 1 && args.log_min_p == -kInf)
      expect(out[r] == sorted[args.top_k - 1] || sorted[args.top_k - 1] == -kInf,
             "the threshold is not the top_k-th value");
  }
}

}  // namespace fuzz
