// The contract between ops.cpp and the kernels: plain structs of pointers, no torch.
#pragma once

#include <cstdint>

namespace pgest {

enum class DType { f64, f32, bf16, f16 };

constexpr int kMaxRowDims = 4;

// Rows of logits: leading dimensions with strides in elements, the vocabulary contiguous.
struct Rows {
  int64_t vocab = 0;
  int ndim = 0;
  int64_t sizes[kMaxRowDims] = {};
  int64_t strides[kMaxRowDims] = {};

  // Offset of row `row`, in elements.
  int64_t offset(int64_t row) const {
    int64_t at = 0;
    for (int d = ndim - 1; d >= 0; --d) {
      at += row % sizes[d] * strides[d];
      row /= sizes[d];
    }
    return at;
  }
};

// What both directions of token_stats read. Small arrays are contiguous over rows; `tokens` and
// everything per token is [num_samples, num_rows]. Null pointers mean: not given.
struct TokenStatsInput {
  DType dtype;
  Rows rows;
  int64_t num_rows = 0;
  int64_t num_samples = 0;  // 0: no tokens
  const void* logits = nullptr;
  const int64_t* tokens = nullptr;
  const double* temperature = nullptr;
  const bool* mask = nullptr;
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

// What a range of rows refused; the first bad row wins.
struct Refusal {
  enum Kind { none, token, temperature } kind = none;
  int64_t row = 0;
  int64_t sample = 0;
};

// Rows [begin, end). Each row is computed by one thread, so results never depend on their number.
Refusal token_stats_forward_cpu(const TokenStatsForward& args, int64_t begin, int64_t end);
Refusal token_stats_backward_cpu(const TokenStatsBackward& args, int64_t begin, int64_t end);

// Asks the operating system to back fresh memory with huge pages: page faults, not stores, are
// what a fresh [N, V] gradient costs.
void advise_huge_pages(void* data, int64_t bytes);

// The instruction set that the CPU kernels picked on this machine.
const char* cpu_isa();

}  // namespace pgest
