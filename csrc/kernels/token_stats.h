#pragma once

#include "common.h"

namespace pgest {

// The statistics, as the bits of `outputs` and in the order in which they are returned. Those before
// argmax are differentiable.
enum Output { kLogp, kEntropy, kLse, kKl, kReverseKl, kValue, kArgmax, kRank, kNumOutputs };

// What both directions of token_stats read. `tokens` and everything per token is
// [num_samples, num_rows].
struct TokenStatsInput : LogitRows {
  int64_t num_samples = 0;  // 0: no tokens
  const int64_t* tokens = nullptr;
  // q = softmax(reference_logits / T), in the dtype of the logits.
  Rows reference_rows;
  const void* reference_logits = nullptr;
  // Rewards r: dense rows, in the dtype of the logits or of the statistics; or those of `num_values`
  // tokens a row, [num_rows, num_values] in the dtype of the statistics, and 0 for all others.
  Rows value_rows;
  DType values_dtype = DType::f32;
  const void* values = nullptr;
  int64_t num_values = 0;
  const int64_t* value_tokens = nullptr;
};

// What a backward needs of a row: state is [3, num_rows], the parts of RowState, or [8, num_rows] where
// kl, reverse_kl or value are asked for, those of PairState.
constexpr int64_t kRowState = 3;
constexpr int64_t kPairState = 8;

// Statistics are float, or double for f64 logits; null where not asked for.
struct TokenStatsForward {
  TokenStatsInput in;
  void* out[kArgmax] = {};
  int64_t* argmax_out = nullptr;
  int64_t* rank_out = nullptr;
  double* state_out = nullptr;

  PGEST_HD bool compared() const { return out[kKl] || out[kReverseKl]; }
  PGEST_HD bool pair() const { return compared() || out[kValue]; }
  // The plain kernel reads logits as they are and knows logp, entropy and lse.
  PGEST_HD bool plain() const { return !in.transformed() && !pair() && !argmax_out && !rank_out; }
};

// Upstream gradients are shaped like the statistics, null where there is none. grad_logits is
// contiguous over rows, or the logits themselves (`inplace`). grad_temperature is [num_rows], or null
// where it is not needed.
struct TokenStatsBackward {
  TokenStatsInput in;
  const double* state = nullptr;
  const void* grad[kArgmax] = {};
  bool inplace = false;
  void* grad_logits = nullptr;
  double* grad_temperature = nullptr;
  // CUDA only: room, in the dtype of the statistics, for what is told apart of the tokens of each row:
  // those chosen, if logp has a gradient, and value_tokens, if value has.
  void* chosen = nullptr;

  PGEST_HD bool compared() const { return grad[kKl] || grad[kReverseKl]; }
  PGEST_HD bool plain() const { return !in.transformed() && !compared() && !grad[kValue]; }
};

// Statistics and their gradient in one go, for upstream gradients that are known before: each row's
// backward follows its forward, while the row is in a cache. To the bit what one after the other makes.
// Of the same input; the state that the backward reads is what the forward writes.
struct TokenStatsGradient {
  TokenStatsForward forward;
  TokenStatsBackward backward;
};

// Rows [begin, end). Each row is computed by one thread, so results never depend on their number.
Refusal token_stats_forward_cpu(const TokenStatsForward& args, int64_t begin, int64_t end);
Refusal token_stats_backward_cpu(const TokenStatsBackward& args, int64_t begin, int64_t end);

// The same for what is not plain.
Refusal token_stats_full_forward_cpu(const TokenStatsForward& args, int64_t begin, int64_t end);
Refusal token_stats_full_backward_cpu(const TokenStatsBackward& args, int64_t begin, int64_t end);

// For all of both.
Refusal token_stats_gradient_cpu(const TokenStatsGradient& args, int64_t begin, int64_t end);

// On a CUDA stream; what went wrong with the launch, or null. They never wait for the device.
const char* token_stats_forward_cuda(const TokenStatsForward& args, void* stream);
const char* token_stats_backward_cuda(const TokenStatsBackward& args, void* stream);
const char* token_stats_full_forward_cuda(const TokenStatsForward& args, void* stream);
const char* token_stats_full_backward_cuda(const TokenStatsBackward& args, void* stream);
const char* token_stats_gradient_cuda(const TokenStatsGradient& args, void* stream);
const char* token_stats_full_gradient_cuda(const TokenStatsGradient& args, void* stream);  // of blocks, not f64

}  // namespace pgest
