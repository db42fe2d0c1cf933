#pragma once

#include "common.h"

namespace pgest {

// x *= by, with one rounding of the product. `by` is one number where x is, float, or double for f64; if it
// is 1, x is neither read nor written.
struct Scale {
  DType dtype;
  Rows rows;
  int64_t num_rows = 0;
  void* x = nullptr;
  const void* by = nullptr;
};

Refusal scale_cpu(const Scale& args, int64_t begin, int64_t end);
const char* scale_cuda(const Scale& args, void* stream);

}  // namespace pgest
