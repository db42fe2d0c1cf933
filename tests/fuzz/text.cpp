// The metrics of text against their definitions, of n-grams in a map and tables of all cells.

#include <cmath>
#include <map>

#include "../../csrc/text/bleu.h"
#include "../../csrc/text/chrf.h"
#include "../../csrc/text/overlap.h"
#include "fuzz.h"

namespace fuzz {
namespace {

using namespace pgest::text;
using Sequence = std::vector<Token>;

// Lengths around the words of bits; few symbols, or ids from the whole range.
Sequence draw(Random& random) {
  const int64_t most[] = {0, 1, 3, 8, 30, 63, 64, 65, 130, 300};
  const int64_t size = random.integer(0, most[random.integer(0, std::size(most) - 1)]);
  const int64_t symbols = random.integer(1, random.integer(0, 1) ? 4 : 60);
  const Token scale = random.integer(0, 3) ? 1 : (Token(1) << 57) - 3;
  Sequence out;
  for (int64_t i = 0; i < size; ++i) out.push_back((random.integer(0, symbols - 1) - symbols / 2) * scale);
  return out;
}

void append(Sequences& to, const Sequence& sequence) {
  to.ids.insert(to.ids.end(), sequence.begin(), sequence.end());
  to.end_sequence();
}

std::map<Sequence, int64_t> counts(const Sequence& of, int n) {
  std::map<Sequence, int64_t> found;
  for (size_t i = 0; i + n <= of.size(); ++i) ++found[Sequence(of.begin() + i, of.begin() + i + n)];
  return found;
}

// Each n-gram as often as it may match: as often as the reference that has it most.
int64_t matches(const Sequence& hypothesis, const std::vector<Sequence>& references, int n) {
  std::map<Sequence, int64_t> most;
  for (const Sequence& reference : references)
    for (const auto& [gram, count] : counts(reference, n)) most[gram] = std::max(most[gram], count);
  int64_t total = 0;
  for (const auto& [gram, count] : counts(hypothesis, n)) {
    const auto found = most.find(gram);
    total += found == most.end() ? 0 : std::min(count, found->second);
  }
  return total;
}

struct Distances {
  int64_t edit, common;
};

Distances tables(const Sequence& a, const Sequence& b) {
  std::vector<int64_t> edit(b.size() + 1), common(b.size() + 1, 0);
  for (size_t j = 0; j <= b.size(); ++j) edit[j] = int64_t(j);
  for (size_t i = 1; i <= a.size(); ++i) {
    int64_t corner = edit[0], common_corner = 0;
    edit[0] = int64_t(i);
    for (size_t j = 1; j <= b.size(); ++j) {
      const bool same = a[i - 1] == b[j - 1];
      const int64_t up = edit[j], common_up = common[j];
      edit[j] = std::min({up + 1, edit[j - 1] + 1, corner + !same});
      common[j] = same ? common_corner + 1 : std::max(common_up, common[j - 1]);
      corner = up;
      common_corner = common_up;
    }
  }
  return {edit.back(), common.back()};
}

struct Batches {
  std::vector<Sequence> hypotheses;
  std::vector<std::vector<Sequence>> references;
  Sequences encoded, encoded_references;
  std::vector<int64_t> starts = {0};

  explicit Batches(Random& random) {
    const int64_t groups = random.integer(0, 4), samples = random.integer(1, 3);
    for (int64_t g = 0; g < groups; ++g) {
      references.emplace_back();
      for (int64_t r = random.integer(1, 3); r > 0; --r) references.back().push_back(draw(random));
      for (const Sequence& reference : references.back()) append(encoded_references, reference);
      starts.push_back(encoded_references.size());
    }
    for (int64_t i = 0; i < groups * samples; ++i) {
      hypotheses.push_back(random.integer(0, 1) ? draw(random) : references[i % groups][0]);
      append(encoded, hypotheses.back());
    }
  }

  const std::vector<Sequence>& of(size_t i) const { return references[i % references.size()]; }
};

void check_ngrams(const Batches& b, const Batch& batch, int orders) {
  Bleu settings;
  settings.orders = orders;
  settings.smoothing = Smoothing::none;
  std::vector<int64_t> found(b.hypotheses.size() * settings.statistics());
  bleu_statistics(batch, settings, found.data());
  for (size_t i = 0; i < b.hypotheses.size(); ++i)
    for (int n = 1; n <= orders; ++n)
      expect(found[i * settings.statistics() + 1 + n] == matches(b.hypotheses[i], b.of(i), n), "matches");
}

void check_distances(const Batches& b, const Batch& batch, int64_t width) {
  const size_t size = b.hypotheses.size();
  std::vector<int64_t> distance(size * width), length(size * width), whole(size), whole_length(size);
  std::vector<double> rouge(size * width * kNumMeasures);
  closest_reference(batch, distance.data(), length.data(), width);
  closest_reference(batch, whole.data(), whole_length.data(), 0);
  rouge_l(batch, rouge.data(), width);
  for (size_t i = 0; i < size; ++i) {
    std::pair<int64_t, int64_t> closest{INT64_MAX, 0};
    double best = 0;
    for (const Sequence& reference : b.of(i)) {
      const Distances d = tables(b.hypotheses[i], reference);
      closest = std::min(closest, {d.edit, int64_t(reference.size())});
      const double sizes = double(b.hypotheses[i].size() + reference.size());
      best = std::max(best, d.common ? 2 * double(d.common) / sizes : 0);
    }
    expect(whole[i] == closest.first && whole_length[i] == closest.second, "closest reference");
    const size_t last = i * width + b.hypotheses[i].size();
    expect(distance[last] == whole[i] && length[last] == whole_length[i], "distance of prefixes");
    expect(std::fabs(rouge[last * kNumMeasures + kFmeasure] - best) < 1e-12, "ROUGE-L");
  }
}

void check_scores(const Batches& b, const Batch& batch, int orders, int64_t width) {
  const size_t size = b.hypotheses.size();
  std::vector<double> scores(size * width), whole(size);
  Bleu settings;
  settings.orders = orders;
  const auto agree = [&](const char* what) {
    for (size_t i = 0; i < size; ++i) {
      expect(scores[i * width + b.hypotheses[i].size()] == whole[i], what);
      expect(whole[i] >= 0 && whole[i] < 100.0001, what);
      if (!b.hypotheses[i].empty() && b.hypotheses[i] == b.of(i)[0]) expect(whole[i] > 99.9999, what);
    }
  };
  bleu(batch, settings, scores.data(), width);
  bleu(batch, settings, whole.data(), 0);
  agree("BLEU");
  chrf(batch, nullptr, {orders, 0, 2, false}, scores.data(), width);
  chrf(batch, nullptr, {orders, 0, 2, false}, whole.data(), 0);
  agree("chrF");
}

}  // namespace

void text_metrics(Random& random) {
  const Batches b(random);
  const Batch batch{b.encoded, b.encoded_references, b.starts, int(random.integer(1, 3))};
  const int orders = int(random.integer(1, 6));
  const int64_t width = b.encoded.longest() + 1 + random.integer(0, 2);
  check_ngrams(b, batch, orders);
  check_distances(b, batch, width);
  check_scores(b, batch, orders, width);
}

}  // namespace fuzz
