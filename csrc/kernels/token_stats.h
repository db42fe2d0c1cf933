#pragma once

#include "common.h"

namespace pgest {

// What both directions of token_stats read. `tokens` and everything per token is
// [num_samples, num_rows].
struct TokenStatsInput : LogitRows {
  int64_t num_samples = 0;  // 0: no tokens
  const int64_t* tokens = nullptr;
};

// Statistics are float, or double for f64 logits; state is [3, num_rows]: the parts of
// RowState, with entropy 0 if not asked for.
struct TokenStatsForward {
  TokenStatsInput in;
  bool entropy = false;
  void* logp_out = nullptr;
  void* entropy_out = nullptr;
  void* lse_out = nullptr;
  double* state_out = nullptr;
};

// grad_logits is contiguous over rows, or the logits themselves (`inplace`). grad_temperature is
// [num_rows], or null where it is not needed.
struct TokenStatsBackward {
  TokenStatsInput in;
  const double* state = nullptr;
  const void* grad_logp = nullptr;
  const void* grad_entropy = nullptr;
  const void* grad_lse = nullptr;
  bool inplace = false;
  void* grad_logits = nullptr;
  double* grad_temperature = nullptr;
};

// Rows [begin, end). Each row is computed by one thread, so results never depend on their number.
Refusal token_stats_forward_cpu(const TokenStatsForward& args, int64_t begin, int64_t end);
Refusal token_stats_backward_cpu(const TokenStatsBackward& args, int64_t begin, int64_t end);

}  // namespace pgest
