#pragma once

#include "../draw.h"
#include "common.h"

namespace pgest {

// Tokens and everything per token are [num_samples, num_rows]. Uniforms in [0, 1) are shaped like
// them, [ceil(num_samples / 2), num_rows] where antithetic; without replacement there are two, for the
// perturbed value and for the token: [2, num_samples, num_rows].
struct Sample {
  LogitRows in;
  Method method = kIndependent;
  int64_t num_samples = 0;
  bool entropy = false;
  const double* noise = nullptr;
  int64_t* tokens_out = nullptr;
  void* logp_out = nullptr;         // float, or double for f64 logits
  void* entropy_out = nullptr;      // [num_rows], the same
  double* perturbed_out = nullptr;  // without replacement only
  double* state_out = nullptr;      // [3, num_rows], as token_stats keeps it
};

// Refuses rows without a possible token or with NaN or +inf (`row_values`), uniforms outside [0, 1)
// (`noise`), and more samples without replacement than there are possible tokens (`possible`, with
// their number as the sample).
Refusal sample_cpu(const Sample& args, int64_t begin, int64_t end);
const char* sample_cuda(const Sample& args, void* stream);

}  // namespace pgest
