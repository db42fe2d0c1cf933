#pragma once

#include <limits>

#include "common.h"

namespace pgest {

// Which tokens of a row are kept: the top_k largest, of those the smallest set of the largest that
// holds top_p of their mass, and of those what has at least min_p of the largest probability.
// `in.threshold` is not read.
struct RowThreshold {
  LogitRows in;
  int64_t top_k = std::numeric_limits<int64_t>::max();
  double top_p = 1;
  double log_min_p = -std::numeric_limits<double>::infinity();
  double* out = nullptr;  // [num_rows], in units of v
};

Refusal row_threshold_cpu(const RowThreshold& args, int64_t begin, int64_t end);
const char* row_threshold_cuda(const RowThreshold& args, void* stream);

}  // namespace pgest
