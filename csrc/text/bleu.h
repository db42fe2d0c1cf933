// BLEU as sacrebleu computes it, to the bit: Papineni et al. 2002; smoothing as in Chen and Cherry 2014.
#pragma once

#include "ngrams.h"

namespace pgest::text {

enum class Smoothing { none, floor, add_k, exp };

struct Bleu {
  int orders = 4;
  Smoothing smoothing = Smoothing::exp;
  double value = 0;  // of floor and add_k
  bool effective_order = true;
  // Python from 3.12 on adds floats with compensation, and so does sacrebleu there.
  bool compensated = false;

  // A hypothesis' statistics: its length, its reference's, the matches of each order, and how many n-grams
  // of each order there are.
  int64_t statistics() const { return 2 + 2 * orders; }
};

double bleu_score(const int64_t* statistics, const Bleu& settings);

// statistics() numbers for each hypothesis.
void bleu_statistics(const Batch& batch, const Bleu& settings, int64_t* out);

// A score for each hypothesis, or, for width > 0, `width` of them: of its first 0, 1, 2, ... tokens, the
// last one repeated.
void bleu(const Batch& batch, const Bleu& settings, double* out, int64_t width);

}  // namespace pgest::text
