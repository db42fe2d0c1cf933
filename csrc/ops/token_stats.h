// What token_stats, its gradient and both in one go share: arguments, results, and what is refused of them.
#pragma once

#include <array>

#include "../kernels/token_stats.h"
#include "common.h"

namespace pgest::ops {

struct Input {
  HeldRows rows;
  TokenStatsInput in;
  Optional tokens, reference, values, value_tokens;
};

// Rows that are read beside the logits, with strides of their own.
inline Optional beside(const Optional& t, const Tensor& logits, const char* name, Rows& rows) {
  if (!t) return std::nullopt;
  const auto same = std::equal(t->sizes().begin(), t->sizes().end(), logits.sizes().begin(),
                               logits.sizes().end());
  if (!same || !same_device(*t, logits))
    throw std::runtime_error(std::string("pgest: ") + name + " must have the shape of logits");
  if (rows_of(*t, rows)) return t;
  Tensor copy = torch::stable::contiguous(*t);
  rows_of(copy, rows);
  return copy;
}

inline void hold_values(Input& input, const Tensor& logits, const Optional& values,
                 const Optional& value_tokens) {
  TokenStatsInput& in = input.in;
  if (!values) return;
  if (value_tokens) {
    if (value_tokens->dim() == 0) throw std::runtime_error("pgest: value_tokens must have a dimension");
    in.num_values = value_tokens->size(value_tokens->dim() - 1);
    const int64_t numel = in.num_rows * in.num_values;
    input.value_tokens = packed(logits, value_tokens, ScalarType::Long, numel, "value_tokens");
    input.values = packed(logits, values, statistics_dtype(logits), numel, "values");
  } else {
    input.values = beside(values, logits, "values", in.value_rows);
    in.values_dtype = dtype_of(*values);
    if (in.values_dtype != in.dtype && values->scalar_type() != statistics_dtype(logits))
      throw std::runtime_error("pgest: values have the wrong dtype");
  }
  in.values = data(input.values);
  in.value_tokens = static_cast<const int64_t*>(data(input.value_tokens));
}

inline Input make_input(const Tensor& logits, const Optional& tokens, const Optional& bias, double softcap,
                 const Optional& temperature, const Optional& threshold, const Optional& mask,
                 const Optional& reference_logits, const Optional& values,
                 const Optional& value_tokens) {
  Input input{hold_rows(logits, bias, softcap, temperature, threshold, mask), {}, {}, {}, {}, {}};
  TokenStatsInput& in = input.in;
  static_cast<LogitRows&>(in) = input.rows.in;
  if (tokens) {
    in.num_samples = tokens->dim() == logits.dim() ? tokens->size(0) : 1;
    input.tokens = packed(logits, tokens, ScalarType::Long, in.num_samples * in.num_rows, "tokens");
    in.tokens = static_cast<const int64_t*>(data(input.tokens));
  }
  if (reference_logits) {
    input.reference = beside(reference_logits, logits, "reference_logits", in.reference_rows);
    if (dtype_of(*reference_logits) != in.dtype)
      throw std::runtime_error("pgest: reference_logits must have the dtype of logits");
    in.reference_logits = data(input.reference);
  }
  hold_values(input, logits, values, value_tokens);
  return input;
}

inline void refuse_token(const char* name, int64_t token, const Refusal& refusal, const TokenStatsInput& in,
                  bool many) {
  throw std::runtime_error(std::string("pgest: ") + name + " must be in [0, " +
                           std::to_string(in.rows.vocab) +
                           ") like the last dimension of logits, got " + std::to_string(token) +
                           " in row " + std::to_string(refusal.row) +
                           (many ? ", sample " + std::to_string(refusal.sample) : ""));
}

inline void refuse(const Refusal& refusal, const TokenStatsInput& in) {
  refuse_temperature(refusal, in);
  if (refusal.kind == Refusal::token)
    refuse_token("tokens", in.tokens[refusal.sample * in.num_rows + refusal.row], refusal, in,
                 in.num_samples > 1);
  if (refusal.kind == Refusal::value_token)
    refuse_token("value_tokens", in.value_tokens[refusal.row * in.num_values + refusal.sample],
                 refusal, in, false);
}

// What outputs ask for, then the state, with a kernel's pointers into both.
struct Forward {
  TokenStatsForward args;
  std::vector<Tensor> results;

  const Tensor& state() const { return results.back(); }
};

inline bool asks(int64_t outputs, int output) { return outputs >> output & 1; }

// Whether outputs ask for what is read of tokens.
inline bool by_token(int64_t outputs) { return asks(outputs, kLogp) || asks(outputs, kRank); }

inline Forward make_forward(const Input& input, const Optional& tokens, int64_t outputs) {
  const Tensor& logits = input.rows.logits;
  if ((by_token(outputs) && !tokens) ||
      ((asks(outputs, kKl) || asks(outputs, kReverseKl)) && !input.reference) ||
      (asks(outputs, kValue) && !input.values))
    throw std::runtime_error("pgest: outputs ask for what the arguments do not give");
  const std::vector<int64_t> batch = leading(logits);
  std::vector<int64_t> token_shape, state_shape = batch;
  if (by_token(outputs)) token_shape.assign(tokens->sizes().begin(), tokens->sizes().end());

  Forward forward{{input.in}, {}};
  TokenStatsForward& args = forward.args;
  std::vector<Tensor>& results = forward.results;
  results.reserve(kNumOutputs + 2);
  for (int output = 0; output < kNumOutputs; ++output) {
    if (!asks(outputs, output)) continue;
    const bool per_token = output == kLogp || output == kRank;
    const ScalarType dtype = output < kArgmax ? statistics_dtype(logits) : ScalarType::Long;
    results.push_back(torch::stable::new_empty(logits, per_token ? token_shape : batch, dtype));
    void* out = results.back().mutable_data_ptr();
    if (output < kArgmax) args.out[output] = out;
    if (output == kArgmax) args.argmax_out = static_cast<int64_t*>(out);
    if (output == kRank) args.rank_out = static_cast<int64_t*>(out);
  }
  state_shape.insert(state_shape.begin(), args.pair() ? kPairState : kRowState);
  results.push_back(torch::stable::new_empty(logits, state_shape, ScalarType::Double));
  args.state_out = static_cast<double*>(results.back().mutable_data_ptr());
  return forward;
}

using Gradients = std::array<const Optional*, kArgmax>;

// A kernel's arguments, and the tensors that their pointers point into.
struct Backward {
  TokenStatsBackward args;
  Optional held[kArgmax];
  Optional state;
  Tensor grad_temperature, chosen;
};

// Of a gradient that fills `grad_logits`: the logits themselves if `inplace`.
inline Backward make_backward(const Input& input, const Tensor& state, const Gradients& grads,
                              bool by_temperature, bool inplace, const Tensor& grad_logits) {
  const TokenStatsInput& in = input.in;
  const Tensor& logits = input.rows.logits;
  TokenStatsBackward args{in};
  Optional held[kArgmax];
  for (int output = 0; output < kArgmax; ++output) {
    const int64_t numel = in.num_rows * (output == kLogp ? in.num_samples : 1);
    held[output] = packed(logits, *grads[output], statistics_dtype(logits), numel, "a gradient");
    args.grad[output] = data(held[output]);
  }
  if ((args.grad[kLogp] && !in.tokens) || (args.compared() && !in.reference_logits) ||
      (args.grad[kValue] && !in.values))
    throw std::runtime_error("pgest: gradients are given of what the arguments do not give");
  const bool pair = args.compared() || args.grad[kValue];
  const int64_t rows = state.dim() == 0 ? 0 : state.size(0);
  if (rows != kPairState && (pair || rows != kRowState))
    throw std::runtime_error("pgest: state has the wrong size");
  const Optional saved = packed(logits, state, ScalarType::Double, rows * in.num_rows, "state");
  const std::vector<int64_t> shape =
      by_temperature ? leading(logits) : std::vector<int64_t>{0};
  Tensor grad_temperature = torch::stable::new_empty(logits, shape, ScalarType::Double);

  args.state = static_cast<const double*>(data(saved));
  args.inplace = inplace;
  args.grad_logits = grad_logits.mutable_data_ptr();
  if (by_temperature)
    args.grad_temperature = static_cast<double*>(grad_temperature.mutable_data_ptr());
#if defined(PGEST_EMULATE)
  constexpr bool on_device = true;
#else
  const bool on_device = !logits.is_cpu();
#endif
  const int64_t tokens = (args.grad[kLogp] ? in.num_samples : 0) + (args.grad[kValue] ? in.num_values : 0);
  Tensor chosen = torch::stable::new_empty(logits, {on_device ? tokens * in.num_rows : 0},
                                           statistics_dtype(logits));
  args.chosen = chosen.mutable_data_ptr();
  Backward backward{args, {}, saved, grad_temperature, chosen};
  std::copy(held, held + kArgmax, backward.held);
  return backward;
}

// In place nothing may have been copied.
inline void check_overwritten(const Input& input, const Tensor& logits) {
  if (input.rows.logits.const_data_ptr() != logits.const_data_ptr())
    throw std::runtime_error("pgest: grad_inplace=True needs logits with a contiguous last dimension");
}

}  // namespace pgest::ops
