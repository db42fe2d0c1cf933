// Metrics of one reference at a time, of which the best or closest counts.
#pragma once

#include "ngrams.h"

namespace pgest::text {

// The edit distance to the closest reference, and the length of that reference: of several as close the
// shortest. Each of them [hypotheses], or [hypotheses, width] for the first 0, 1, 2, ... tokens.
void closest_reference(const Batch& batch, int64_t* distance, int64_t* length, int64_t width);

enum Measure { kPrecision, kRecall, kFmeasure, kNumMeasures };

// ROUGE-N as rouge-score computes it, of the reference with the best F: Lin 2004. [hypotheses, 3].
void rouge_n(const Batch& batch, int n, double* out);

// The same of the longest common subsequence, [hypotheses, 3] or [hypotheses, width, 3].
void rouge_l(const Batch& batch, double* out, int64_t width);

// Whether a hypothesis is one of its references.
void exact_match(const Batch& batch, double* out);

}  // namespace pgest::text
