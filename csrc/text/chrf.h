// chrF and chrF++ as sacrebleu computes them, to the bit: Popović 2015, 2017.
#pragma once

#include "ngrams.h"

namespace pgest::text {

struct Chrf {
  int char_orders = 6;
  int word_orders = 0;
  double beta = 2;
  bool eps_smoothing = false;
};

// A score for each hypothesis of characters, or for width > 0 those of its first 0, 1, 2, ... characters.
// `words`: the same batch in words, for word_orders > 0; there are no scores of prefixes with them.
void chrf(const Batch& characters, const Batch* words, const Chrf& settings, double* out, int64_t width);

}  // namespace pgest::text
