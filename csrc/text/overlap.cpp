#include "overlap.h"

#include <limits>

#include "distance.h"
#include "threads.h"

namespace pgest::text {
namespace {

struct Triple {
  double of[kNumMeasures] = {};
};

// Of what matches in a hypothesis and a reference of so many parts.
Triple measures(int64_t matches, int64_t hypothesis, int64_t reference) {
  const double precision = double(matches) / double(std::max<int64_t>(hypothesis, 1));
  const double recall = double(matches) / double(std::max<int64_t>(reference, 1));
  const double both = precision + recall;
  return {{precision, recall, both > 0 ? 2 * precision * recall / both : 0}};
}

void keep_better(double* at, const Triple& triple) {
  if (triple.of[kFmeasure] > at[kFmeasure]) std::copy_n(triple.of, int(kNumMeasures), at);
}

}  // namespace

void closest_reference(const Batch& batch, int64_t* distance, int64_t* length, int64_t width) {
  const int64_t columns = std::max<int64_t>(width, 1);
  for_hypotheses(batch, 8, [&] {
    return [&, edit = EditDistance()](const Positions& positions, int64_t, Tokens hypothesis, int64_t i) mutable {
      int64_t* to = distance + i * columns;
      int64_t* to_length = length + i * columns;
      std::fill_n(to, columns, std::numeric_limits<int64_t>::max());
      const auto keep = [&](int64_t column, int64_t found, int64_t size) {
        const bool closer = found < to[column] || (found == to[column] && size < to_length[column]);
        if (!closer) return;
        to[column] = found;
        to_length[column] = size;
      };
      for (const Place& place : positions.places()) {
        if (width) keep(0, place.size, place.size);
        const int64_t found = edit.run(positions, place, hypothesis, [&](int64_t j, int64_t now) {
          if (width) keep(j + 1, now, place.size);
        });
        if (!width) keep(0, found, place.size);
      }
      const int64_t last = width ? int64_t(hypothesis.size()) : 0;
      std::fill(to + last, to + columns, to[last]);
      std::fill(to_length + last, to_length + columns, to_length[last]);
    };
  });
}

void rouge_n(const Batch& batch, int n, double* out) {
  for_hypotheses(batch, 8, [&] {
    return [&, ngram = NgramMatches()](const Positions& positions, int64_t, Tokens hypothesis, int64_t i) mutable {
      double* at = out + i * kNumMeasures;
      std::fill_n(at, int(kNumMeasures), 0.0);
      for (const Place& place : positions.places()) {
        int64_t matches = 0;
        ngram.run(positions, place, hypothesis, n, [&](int64_t, const Counts& now) { matches = now[n - 1]; });
        keep_better(at, measures(matches, ngrams(int64_t(hypothesis.size()), n), ngrams(place.size, n)));
      }
    };
  });
}

void rouge_l(const Batch& batch, double* out, int64_t width) {
  const int64_t columns = std::max<int64_t>(width, 1);
  for_hypotheses(batch, 8, [&] {
    return [&, common = CommonSubsequence()](const Positions& positions, int64_t, Tokens hypothesis, int64_t i) mutable {
      double* at = out + i * columns * kNumMeasures;
      const int64_t size = int64_t(hypothesis.size());
      std::fill_n(at, columns * kNumMeasures, 0.0);
      for (const Place& place : positions.places()) {
        const int64_t found = common.run(positions, place, hypothesis, [&](int64_t j, int64_t now) {
          if (width) keep_better(at + (j + 1) * kNumMeasures, measures(now, j + 1, place.size));
        });
        if (!width) keep_better(at, measures(found, size, place.size));
      }
      for (int64_t column = size + 1; column < columns; ++column)
        std::copy_n(at + size * kNumMeasures, int(kNumMeasures), at + column * kNumMeasures);
    };
  });
}

void exact_match(const Batch& batch, double* out) {
  const int64_t groups = batch.groups();
  for (int64_t i = 0; i < batch.hypotheses.size(); ++i) {
    const Tokens hypothesis = batch.hypotheses[i];
    bool same = false;
    for (int64_t r = batch.starts[i % groups]; r < batch.starts[i % groups + 1]; ++r) {
      const Tokens reference = batch.references[r];
      same |= std::equal(hypothesis.begin(), hypothesis.end(), reference.begin(), reference.end());
    }
    out[i] = same;
  }
}

}  // namespace pgest::text
