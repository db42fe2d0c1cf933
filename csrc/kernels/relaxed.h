#pragma once

#include "common.h"

namespace pgest {

// Rows of logits with Gumbel noise g: u = (z + g) / temperature. The noise comes from a seed, or from
// uniforms [num_rows, vocab] (double for f64 logits, else float), or there is none (both null).
struct NoisyRows : LogitRows {
  const int64_t* seed = nullptr;
  const void* uniforms = nullptr;
};

// out [num_rows, vocab] = softmax(u), or where `hard` the one-hot vector of its largest entry.
struct GumbelSoftmaxForward {
  NoisyRows in;
  bool hard = false;
  void* out = nullptr;
};

// The gradient of softmax(u) for z, and for the temperature where grad_temperature is not null.
// `soft` is what the forward returned, or null: then it is computed again from `in`, of which
// otherwise only dtype, sizes and temperature are read. All [num_rows, vocab] are contiguous.
struct SoftmaxBackward {
  NoisyRows in;
  const void* soft = nullptr;
  const void* grad = nullptr;
  void* grad_logits = nullptr;
  double* grad_temperature = nullptr;
};

// The Jacobian that a hard sample is given, see csrc/jacobian.h.
enum class Jacobian { straight_through, reinmax };

// out [num_rows, vocab] = one-hot vectors, from `tokens` [num_rows] or as in `one_hot` [num_rows,
// vocab], whose tokens go to tokens_out. Of `in` only dtype and sizes are read.
struct StraightThroughForward {
  LogitRows in;
  const int64_t* tokens = nullptr;
  const void* one_hot = nullptr;
  int64_t* tokens_out = nullptr;
  void* out = nullptr;
};

// grad_logits [num_rows, vocab] = J(x, p)^T grad, with x the one-hot vectors of `tokens` [num_rows].
struct StraightThroughBackward {
  LogitRows in;
  const int64_t* tokens = nullptr;
  Jacobian jacobian = Jacobian::straight_through;
  const void* grad = nullptr;
  void* grad_logits = nullptr;
};

Refusal gumbel_softmax_cpu(const GumbelSoftmaxForward& args, int64_t begin, int64_t end);
Refusal softmax_backward_cpu(const SoftmaxBackward& args, int64_t begin, int64_t end);
Refusal straight_through_cpu(const StraightThroughForward& args, int64_t begin, int64_t end);
Refusal straight_through_backward_cpu(const StraightThroughBackward& args, int64_t begin, int64_t end);

// On a CUDA stream; what went wrong with the launch, or null.
const char* gumbel_softmax_cuda(const GumbelSoftmaxForward& args, void* stream);
const char* softmax_backward_cuda(const SoftmaxBackward& args, void* stream);
const char* straight_through_cuda(const StraightThroughForward& args, void* stream);
const char* straight_through_backward_cuda(const StraightThroughBackward& args, void* stream);

}  // namespace pgest
