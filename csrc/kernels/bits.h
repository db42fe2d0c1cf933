#pragma once

#include "common.h"

namespace pgest {

// Rows of logits [num_rows, width], contiguous, and bits [num_samples, num_rows, width], bytes or in
// the logits' dtype. `joint` sums over a row; else every bit counts alone.
struct BitRows {
  DType dtype;
  int64_t num_rows = 0, width = 0, num_samples = 0;
  bool joint = true, bytes = false;
  const void* logits = nullptr;
  const void* bits = nullptr;
};

// logp_out [num_samples, num_rows], entropy_out [num_rows], or with a last dimension [width] where not
// joint; float, or double for f64 logits. Null where not asked for.
struct BitStatsForward {
  BitRows in;
  void* logp_out = nullptr;
  void* entropy_out = nullptr;
};

// grad_logits [num_rows, width] from gradients shaped like the outputs, null where there is none.
struct BitStatsBackward {
  BitRows in;
  const void* grad_logp = nullptr;
  const void* grad_entropy = nullptr;
  void* grad_logits = nullptr;
};

// out [num_samples, numel], bytes or in the logits' dtype. The noise is a seed's or uniforms
// [draws, numel] (double for f64 logits, else float). With `antithetic` the second half of the samples
// mirrors the first: draws is half of num_samples.
struct SampleBits {
  DType dtype;
  int64_t numel = 0, num_samples = 0;
  bool antithetic = false, bytes = false;
  const void* logits = nullptr;
  const int64_t* seed = nullptr;
  const void* uniforms = nullptr;
  void* out = nullptr;
};

// Bits that are handled together: sums of so few are exact to a float's rounding, and are themselves
// summed in double.
constexpr int64_t kBitBlock = 256;

Refusal bit_stats_cpu(const BitStatsForward& args, int64_t begin, int64_t end);
Refusal bit_stats_backward_cpu(const BitStatsBackward& args, int64_t begin, int64_t end);

// Blocks [begin, end) of kBitBlock elements each.
Refusal sample_bits_cpu(const SampleBits& args, int64_t begin, int64_t end);

// On a CUDA stream; what went wrong with the launch, or null.
const char* bit_stats_cuda(const BitStatsForward& args, void* stream);
const char* bit_stats_backward_cuda(const BitStatsBackward& args, void* stream);
const char* sample_bits_cuda(const SampleBits& args, void* stream);

}  // namespace pgest
