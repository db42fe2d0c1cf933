#include "chrf.h"

#include "../clones.h"
#include "threads.h"

namespace pgest::text {
namespace {

constexpr int kMostBoth = 2 * kMostOrders;

// Matches of one order, and the n-grams of the hypothesis and the reference.
struct Order {
  double matches, hypothesis, reference;
};

double f_score(const Order* each, int orders, const Chrf& settings) {
  constexpr double eps = 1e-16;
  const double factor = settings.beta * settings.beta;
  double score = 0, precision = 0, recall = 0;
  int effective = 0;
  for (int n = 0; n < orders; ++n) {
    const Order& o = each[n];
    const double hypothesis = o.reference > 0 ? o.hypothesis : 0;  // nothing to be compared with
    const double p = hypothesis > 0 ? o.matches / hypothesis : eps;
    const double r = o.reference > 0 ? o.matches / o.reference : eps;
    if (settings.eps_smoothing) {
      const double denominator = factor * p + r;
      score += denominator > 0 ? (1 + factor) * p * r / denominator : eps;
    }
    if (hypothesis > 0 && o.reference > 0) {
      precision += p;
      recall += r;
      ++effective;
    }
  }
  if (settings.eps_smoothing) return 100 * score / orders;
  if (effective > 0) {
    precision /= effective;
    recall /= effective;
  }
  if (precision + recall == 0) return 0;
  score = (1 + factor) * precision * recall;
  score /= factor * precision + recall;
  return 100 * score;
}

void fill(Order* each, int orders, const Counts& matches, int64_t hypothesis, int64_t reference) {
  for (int n = 1; n <= orders; ++n)
    each[n - 1] = {double(matches[n - 1]), double(ngrams(hypothesis, n)), double(ngrams(reference, n))};
}

class Scorer {
 public:
  Scorer(const Batch* words, const Chrf& settings, double* out, int64_t width)
      : words_(words), settings_(settings), out_(out), width_(width) {}

  void score_one(const Positions& positions, int64_t group, Tokens hypothesis, int64_t i) {
    const int64_t size = int64_t(hypothesis.size());
    double* at = out_ + i * std::max<int64_t>(width_, 1);
    std::fill_n(at, std::max<int64_t>(width_, 1), 0.0);
    if (words_ && group != built_) {
      word_positions_.build(words_->references, words_->starts[group], words_->starts[group + 1]);
      built_ = group;
    }
    const std::vector<Place>& places = positions.places();
    for (size_t r = 0; r < places.size(); ++r) {
      Counts matches{};
      if (width_) at[0] = std::max(at[0], score(places[r], matches, 0));
      characters_.run(positions, places[r], hypothesis, settings_.char_orders, [&](int64_t j, const Counts& now) {
        if (width_) at[j + 1] = std::max(at[j + 1], score(places[r], now, j + 1));
        else if (j + 1 == size) matches = now;
      });
      if (!width_) at[0] = std::max(at[0], words_ ? with_words(places[r], r, matches, size, i)
                                                  : score(places[r], matches, size));
    }
    if (width_) std::fill(at + size, at + width_, at[size]);
  }

 private:
  double score(const Place& place, const Counts& matches, int64_t size) {
    fill(orders_, settings_.char_orders, matches, size, place.size);
    return f_score(orders_, settings_.char_orders, settings_);
  }

  double with_words(const Place& place, size_t r, const Counts& matches, int64_t size, int64_t i) {
    const Tokens words = words_->hypotheses[i];
    const Place& word_place = word_positions_.places()[r];
    Counts word_matches{};
    word_ngrams_.run(word_positions_, word_place, words, settings_.word_orders, [&](int64_t, const Counts& now) {
      word_matches = now;
    });
    fill(orders_, settings_.char_orders, matches, size, place.size);
    fill(orders_ + settings_.char_orders, settings_.word_orders, word_matches, int64_t(words.size()), word_place.size);
    return f_score(orders_, settings_.char_orders + settings_.word_orders, settings_);
  }

  const Batch* words_;
  Chrf settings_;
  double* out_;
  int64_t width_;
  NgramMatches characters_, word_ngrams_;
  Positions word_positions_;
  int64_t built_ = -1;
  Order orders_[kMostBoth];
};

// All that is called from here is inlined into each clone: sets are wide, vectors of them are too.
__attribute__((flatten)) PGEST_CLONES void score_one(Scorer& scorer, const Positions& positions, int64_t group,
                                                     Tokens hypothesis, int64_t i) {
  scorer.score_one(positions, group, hypothesis, i);
}

}  // namespace

void chrf(const Batch& characters, const Batch* words, const Chrf& settings, double* out, int64_t width) {
  for_hypotheses(characters, 30, [&] {
    return [scorer = Scorer(words, settings, out, width)](auto&&... args) mutable { score_one(scorer, args...); };
  });
}

}  // namespace pgest::text
