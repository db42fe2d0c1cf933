// The contract between csrc/ops and the kernels: plain structs of pointers, no torch. What all ops
// on rows of logits share.
#pragma once

#include <cstdint>

#include "../host_device.h"

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
  PGEST_HD int64_t offset(int64_t row) const {
    if (ndim <= 1) return row * strides[0];  // strides[0] is 0 where there is but one row
    int64_t at = 0;
#if defined(__CUDACC__)
#pragma unroll 1  // a division of 64 bits is long
#endif
    for (int d = ndim - 1; d >= 0; --d) {
      const int64_t outer = row / sizes[d];
      at += (row - outer * sizes[d]) * strides[d];
      row = outer;
    }
    return at;
  }
};

// Logits and what turns a row z of them into u, whose softmax is the policy: v = z + bias, squashed
// to softcap * tanh(v / softcap), -inf where v < threshold, and u = v / temperature. Null pointers
// and softcap 0 mean: not given. Per-row arrays are contiguous over rows; bias is [vocab], float, or
// double for f64 logits.
struct LogitRows {
  DType dtype;
  Rows rows;
  int64_t num_rows = 0;
  const void* logits = nullptr;
  const void* bias = nullptr;
  double softcap = 0;
  const double* temperature = nullptr;
  const double* threshold = nullptr;
  const bool* mask = nullptr;

  PGEST_HD bool transformed() const { return bias || softcap != 0 || threshold; }
};

// What a range of rows refused; the first bad row wins.
struct Refusal {
  enum Kind {
    none,
    token,
    temperature,
    value_token,
    row_values,
    noise,
    possible,
    one_hot,
    bit,
    nan
  } kind = none;
  int64_t row = 0;
  int64_t sample = 0;  // or which of the row's value_tokens, or how many tokens are possible
};

// Asks the operating system to back fresh memory with huge pages: page faults, not stores, are
// what a fresh [N, V] gradient costs.
void advise_huge_pages(void* data, int64_t bytes);

// The instruction set that the CPU kernels picked on this machine.
const char* cpu_isa();

}  // namespace pgest
