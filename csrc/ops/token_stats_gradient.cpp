// token_stats and its gradient in one go, for gradients of the statistics that are known before.

#include "token_stats.h"

namespace pgest::ops {
namespace {

// Fills `grad_logits` and returns what outputs ask for and the temperature's gradient.
std::vector<Tensor> run_gradient(const Input& input, const Optional& tokens, const Gradients& grads,
                                 int64_t outputs, bool by_temperature, bool inplace,
                                 const Tensor& grad_logits) {
  for (int output = 0; output < kArgmax; ++output)
    if (*grads[output] && !asks(outputs, output))
      throw std::runtime_error("pgest: gradients are given of what outputs do not ask for");
  Forward forward = make_forward(input, tokens, outputs);
  const Backward backward =
      make_backward(input, forward.state(), grads, by_temperature, inplace, grad_logits);
  const TokenStatsGradient args{forward.args, backward.args};
  constexpr Kernel<TokenStatsGradient> kernel PGEST_KERNEL(token_stats_gradient);
  refuse(run(kernel, grad_logits, args, input.in.num_rows, input.in.rows.vocab), input.in);
  forward.results.back() = backward.grad_temperature;
  return std::move(forward.results);
}

std::vector<Tensor> token_stats_gradient(
    Tensor logits, Optional tokens, Optional bias, double softcap, Optional temperature,
    Optional threshold, Optional mask, Optional reference_logits, Optional values,
    Optional value_tokens, Optional grad_logp, Optional grad_entropy, Optional grad_lse,
    Optional grad_kl, Optional grad_reverse_kl, Optional grad_value, int64_t outputs,
    bool by_temperature) {
  const Input input = make_input(logits, by_token(outputs) ? tokens : std::nullopt, bias, softcap,
                                 temperature, threshold, mask, reference_logits, values, value_tokens);
  const Tensor grad_logits = fresh_like(logits);
  std::vector<Tensor> results = run_gradient(
      input, tokens, {&grad_logp, &grad_entropy, &grad_lse, &grad_kl, &grad_reverse_kl, &grad_value},
      outputs, by_temperature, false, grad_logits);
  results.insert(results.end() - 1, grad_logits);
  return results;
}

std::vector<Tensor> token_stats_gradient_(
    Tensor logits, Optional tokens, Optional bias, double softcap, Optional temperature,
    Optional threshold, Optional mask, Optional reference_logits, Optional values,
    Optional value_tokens, Optional grad_logp, Optional grad_entropy, Optional grad_lse,
    Optional grad_kl, Optional grad_reverse_kl, Optional grad_value, int64_t outputs,
    bool by_temperature) {
  const Input input = make_input(logits, by_token(outputs) ? tokens : std::nullopt, bias, softcap,
                                 temperature, threshold, mask, reference_logits, values, value_tokens);
  check_overwritten(input, logits);
  return run_gradient(
      input, tokens, {&grad_logp, &grad_entropy, &grad_lse, &grad_kl, &grad_reverse_kl, &grad_value},
      outputs, by_temperature, true, logits);
}

template <class Library>
void implement(Library& library) {
  library.impl("token_stats_gradient", TORCH_BOX(&token_stats_gradient));
  library.impl("token_stats_gradient_", TORCH_BOX(&token_stats_gradient_));
}

}  // namespace
}  // namespace pgest::ops

PGEST_IMPLEMENT(pgest::ops::implement)
