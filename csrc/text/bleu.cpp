#include "bleu.h"

#include <cmath>
#include <limits>

#include "threads.h"

namespace pgest::text {
namespace {

constexpr double kLogOfZero = -9999999999.0;

double log_or_floor(double x) { return x == 0 ? kLogOfZero : std::log(x); }

// The plain sum, or Neumaier's.
double sum(const double* x, int n, bool compensated) {
  double total = 0, lost = 0;
  if (!compensated) {
    for (int i = 0; i < n; ++i) total += x[i];
    return total;
  }
  for (int i = 0; i < n; ++i) {
    const double next = total + x[i];
    lost += std::fabs(total) >= std::fabs(x[i]) ? (total - next) + x[i] : (x[i] - next) + total;
    total = next;
  }
  return lost != 0 && std::isfinite(lost) ? total + lost : total;
}

// Values of a function of two small integers, computed when first asked for: scores of all prefixes need
// the same few logarithms over and over.
template <class Function>
class Remembered {
 public:
  explicit Remembered(Function function) : function_(function), values_(kSize * kSize, std::nan("")) {}
  double operator()(int64_t a, int64_t b) {
    if (a >= kSize || b >= kSize) return function_(a, b);
    double& value = values_[a * kSize + b];
    if (std::isnan(value)) value = function_(a, b);
    return value;
  }

 private:
  static constexpr int64_t kSize = 64;
  Function function_;
  std::vector<double> values_;
};

double log_percent(int64_t matches, int64_t total) { return log_or_floor(100.0 * double(matches) / double(total)); }
double brevity(int64_t size, int64_t reference) {
  if (size >= reference) return 1;
  return size > 0 ? std::exp(1 - double(reference) / double(size)) : 0;
}

// The score, with the logarithm of unsmoothed precisions and the brevity penalty from where they come best.
template <class LogPercent, class Brevity>
double score(int64_t size, int64_t reference, const int64_t* matches, const int64_t* totals, const Bleu& settings,
             LogPercent&& log_percent, Brevity&& brevity) {
  const int orders = settings.orders;
  bool any = false;
  for (int n = 0; n < orders; ++n) any |= matches[n] != 0;
  if (!any) return 0;
  double logs[kMostOrders];
  int used = settings.effective_order ? 0 : orders;
  double halvings = 1;
  int n = 0;
  for (; n < orders; ++n) {
    const double k = settings.smoothing == Smoothing::add_k && n > 0 ? settings.value : 0;
    if (double(totals[n]) + k == 0) break;
    if (settings.effective_order) used = n + 1;
    if (k != 0) {
      const double match = double(matches[n]) + k;
      logs[n] = match == 0 ? kLogOfZero : log_or_floor(100.0 * match / (double(totals[n]) + k));
    } else if (matches[n] != 0) {
      logs[n] = log_percent(matches[n], totals[n]);
    } else if (settings.smoothing == Smoothing::exp) {
      halvings *= 2;
      logs[n] = log_or_floor(100.0 / (halvings * double(totals[n])));
    } else if (settings.smoothing == Smoothing::floor) {
      logs[n] = log_or_floor(100.0 * settings.value / double(totals[n]));
    } else {
      logs[n] = kLogOfZero;
    }
  }
  for (; n < orders; ++n) logs[n] = kLogOfZero;
  return brevity(size, reference) * std::exp(sum(logs, used, settings.compensated) / used);
}

// Of the references' lengths the one closest to the hypothesis'; of two the shorter.
int64_t closest_length(const std::vector<Place>& places, int64_t size) {
  int64_t best = places[0].size;
  for (const Place& place : places) {
    const int64_t distance = std::abs(place.size - size), least = std::abs(best - size);
    if (distance < least || (distance == least && place.size < best)) best = place.size;
  }
  return best;
}

// Calls each(i, matches) after each token, for n-grams that may match as often as the reference that has most
// of them.
template <class Each>
void match(NgramMatches& ngrams, const Positions& positions, Tokens hypothesis, int orders, Each each) {
  const std::vector<Place>& places = positions.places();
  if (places.size() == 1) return ngrams.run(positions, places[0], hypothesis, orders, each);
  const auto most = [&](const uint64_t* set) {
    int64_t best = 0;
    for (const Place& place : places) {
      int64_t bits = 0;
      for (int64_t w = place.word; w < place.word + place.words; ++w) bits += std::popcount(set[w]);
      best = std::max(best, bits);
    }
    return best;
  };
  ngrams.run(positions, 0, positions.words(), hypothesis, orders, most, each);
}

void fill_totals(int64_t* totals, int64_t size, int orders) {
  for (int n = 1; n <= orders; ++n) totals[n - 1] = ngrams(size, n);
}

}  // namespace

double bleu_score(const int64_t* statistics, const Bleu& settings) {
  const int64_t* matches = statistics + 2;
  return score(statistics[0], statistics[1], matches, matches + settings.orders, settings, log_percent, brevity);
}

void bleu_statistics(const Batch& batch, const Bleu& settings, int64_t* out) {
  const int orders = settings.orders;
  for_hypotheses(batch, 10, [&] {
    return [&, ngrams = NgramMatches()](const Positions& positions, int64_t, Tokens hypothesis, int64_t i) mutable {
      int64_t* at = out + i * settings.statistics();
      const int64_t size = int64_t(hypothesis.size());
      at[0] = size;
      at[1] = closest_length(positions.places(), size);
      std::fill_n(at + 2, orders, 0);
      match(ngrams, positions, hypothesis, orders, [&](int64_t j, const Counts& matches) {
        if (j + 1 == size) std::copy_n(matches.begin(), orders, at + 2);
      });
      fill_totals(at + 2 + orders, size, orders);
    };
  });
}

void bleu(const Batch& batch, const Bleu& settings, double* out, int64_t width) {
  for_hypotheses(batch, width ? 25 : 10, [&] {
    return [&, ngrams = NgramMatches()](const Positions& positions, int64_t, Tokens hypothesis, int64_t i) mutable {
      static thread_local Remembered logs(log_percent), penalties(brevity);
      const int64_t size = int64_t(hypothesis.size());
      const std::vector<Place>& places = positions.places();
      int64_t totals[kMostOrders];
      const auto score_of = [&](int64_t tokens, const Counts& matches) {
        fill_totals(totals, tokens, settings.orders);
        const int64_t reference = closest_length(places, tokens);
        return score(tokens, reference, matches.data(), totals, settings, logs, penalties);
      };
      double last = 0;
      double* at = width ? out + i * width : out + i;
      if (width) *at++ = 0;
      match(ngrams, positions, hypothesis, settings.orders, [&](int64_t j, const Counts& matches) {
        if (width) *at++ = last = score_of(j + 1, matches);
        if (!width && j + 1 == size) last = score_of(size, matches);
      });
      if (width) std::fill_n(at, width - 1 - size, last);
      else *at = last;
    };
  });
}

}  // namespace pgest::text
