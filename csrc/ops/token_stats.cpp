// token_stats and its gradient: allocation, dispatch.

#include "../kernels/token_stats.h"

#include "common.h"

namespace pgest::ops {
namespace {

struct Input {
  HeldRows rows;
  TokenStatsInput in;
  Optional tokens;
};

Input make_input(const Tensor& logits, const Optional& tokens, const Optional& temperature,
                 const Optional& mask) {
  Input input{hold_rows(logits, std::nullopt, 0, temperature, std::nullopt, mask), {}, std::nullopt};
  TokenStatsInput& in = input.in;
  static_cast<LogitRows&>(in) = input.rows.in;
  if (tokens) {
    in.num_samples = tokens->dim() == logits.dim() ? tokens->size(0) : 1;
    input.tokens = packed(tokens, ScalarType::Long, in.num_samples * in.num_rows, "tokens");
    in.tokens = static_cast<const int64_t*>(data(input.tokens));
  }
  return input;
}

void refuse(const Refusal& refusal, const TokenStatsInput& in) {
  refuse_temperature(refusal, in);
  if (refusal.kind != Refusal::token) return;
  const int64_t token = in.tokens[refusal.sample * in.num_rows + refusal.row];
  throw std::runtime_error("pgest: tokens must be in [0, " + std::to_string(in.rows.vocab) +
                           ") like the last dimension of logits, got " + std::to_string(token) +
                           " in row " + std::to_string(refusal.row) +
                           (in.num_samples > 1 ? ", sample " + std::to_string(refusal.sample) : ""));
}

std::tuple<Tensor, Tensor, Tensor, Tensor> token_stats(Tensor logits, Optional tokens,
                                                       Optional temperature, Optional mask,
                                                       bool entropy) {
  Input input = make_input(logits, tokens, temperature, mask);
  const ScalarType dtype = statistics_dtype(logits);
  const std::vector<int64_t> batch = leading(logits);
  std::vector<int64_t> state_shape = batch;
  state_shape.insert(state_shape.begin(), 3);
  const std::vector<int64_t> none{0};

  std::vector<int64_t> logp_shape = none;
  if (tokens) logp_shape.assign(tokens->sizes().begin(), tokens->sizes().end());
  Tensor logp_out = torch::stable::new_empty(logits, logp_shape, dtype);
  Tensor entropy_out = torch::stable::new_empty(logits, entropy ? batch : none, dtype);
  Tensor lse_out = torch::stable::new_empty(logits, batch, dtype);
  Tensor state_out = torch::stable::new_empty(logits, state_shape, ScalarType::Double);

  TokenStatsForward args{input.in, entropy};
  args.logp_out = logp_out.mutable_data_ptr();
  args.entropy_out = entropy_out.mutable_data_ptr();
  args.lse_out = lse_out.mutable_data_ptr();
  args.state_out = static_cast<double*>(state_out.mutable_data_ptr());

  refuse(over_rows(args.in.num_rows, args.in.rows.vocab, [&](int64_t begin, int64_t end) {
           return token_stats_forward_cpu(args, begin, end);
         }), args.in);
  return {logp_out, entropy_out, lse_out, state_out};
}

// Fills `grad_logits` (the logits themselves if `inplace`) and returns the temperature's gradient.
Tensor run_backward(const Input& input, const Tensor& state, const Optional& grad_logp,
                    const Optional& grad_entropy, const Optional& grad_lse, bool by_temperature,
                    bool inplace, const Tensor& grad_logits) {
  const TokenStatsInput& in = input.in;
  const ScalarType dtype = statistics_dtype(input.rows.logits);
  const Optional by_token = packed(grad_logp, dtype, in.num_samples * in.num_rows, "grad_logp");
  const Optional by_entropy = packed(grad_entropy, dtype, in.num_rows, "grad_entropy");
  const Optional by_lse = packed(grad_lse, dtype, in.num_rows, "grad_lse");
  const Optional saved = packed(state, ScalarType::Double, 3 * in.num_rows, "state");
  const std::vector<int64_t> shape =
      by_temperature ? leading(input.rows.logits) : std::vector<int64_t>{0};
  Tensor grad_temperature = torch::stable::new_empty(input.rows.logits, shape, ScalarType::Double);

  TokenStatsBackward args{in};
  args.state = static_cast<const double*>(data(saved));
  args.grad_logp = data(by_token);
  args.grad_entropy = data(by_entropy);
  args.grad_lse = data(by_lse);
  args.inplace = inplace;
  args.grad_logits = grad_logits.mutable_data_ptr();
  if (by_temperature)
    args.grad_temperature = static_cast<double*>(grad_temperature.mutable_data_ptr());
  refuse(over_rows(in.num_rows, in.rows.vocab, [&](int64_t begin, int64_t end) {
           return token_stats_backward_cpu(args, begin, end);
         }), in);
  return grad_temperature;
}

std::tuple<Tensor, Tensor> token_stats_backward(Tensor logits, Optional tokens, Optional temperature,
                                                Optional mask, Tensor state, Optional grad_logp,
                                                Optional grad_entropy, Optional grad_lse,
                                                bool by_temperature) {
  const Input input = make_input(logits, tokens, temperature, mask);
  Tensor grad_logits = fresh_like(logits);
  Tensor grad_temperature =
      run_backward(input, state, grad_logp, grad_entropy, grad_lse, by_temperature,
                   false, grad_logits);
  return {grad_logits, grad_temperature};
}

Tensor token_stats_backward_(Tensor logits, Optional tokens, Optional temperature, Optional mask,
                             Tensor state, Optional grad_logp, Optional grad_entropy,
                             Optional grad_lse, bool by_temperature) {
  const Input input = make_input(logits, tokens, temperature, mask);
  if (input.rows.logits.const_data_ptr() != logits.const_data_ptr())
    throw std::runtime_error("pgest: grad_inplace=True needs logits with a contiguous last dimension");
  return run_backward(input, state, grad_logp, grad_entropy, grad_lse, by_temperature, true,
                      logits);
}

}  // namespace
}  // namespace pgest::ops

STABLE_TORCH_LIBRARY_IMPL(pgest, CPU, m) {
  m.impl("token_stats", TORCH_BOX(&pgest::ops::token_stats));
  m.impl("token_stats_backward", TORCH_BOX(&pgest::ops::token_stats_backward));
  m.impl("token_stats_backward_", TORCH_BOX(&pgest::ops::token_stats_backward_));
}
