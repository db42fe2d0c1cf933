// token_stats and its gradient: allocation, dispatch.

#include "token_stats.h"

namespace pgest::ops {
namespace {

std::vector<Tensor> token_stats(Tensor logits, Optional tokens, Optional bias, double softcap,
                                Optional temperature, Optional threshold, Optional mask,
                                Optional reference_logits, Optional values, Optional value_tokens,
                                int64_t outputs) {
  const Input input = make_input(logits, by_token(outputs) ? tokens : std::nullopt, bias, softcap,
                                 temperature, threshold, mask, reference_logits, values, value_tokens);
  Forward forward = make_forward(input, tokens, outputs);
  const TokenStatsForward& args = forward.args;
  constexpr Kernel<TokenStatsForward> plain PGEST_KERNEL(token_stats_forward);
  constexpr Kernel<TokenStatsForward> full PGEST_KERNEL(token_stats_full_forward);
  refuse(run(args.plain() ? plain : full, logits, args, args.in.num_rows, args.in.rows.vocab), args.in);
  return std::move(forward.results);
}

// Fills `grad_logits` and returns the temperature's gradient.
Tensor run_backward(const Input& input, const Tensor& state, const Gradients& grads,
                    bool by_temperature, bool inplace, const Tensor& grad_logits) {
  const Backward backward = make_backward(input, state, grads, by_temperature, inplace, grad_logits);
  const TokenStatsBackward& args = backward.args;
  constexpr Kernel<TokenStatsBackward> plain PGEST_KERNEL(token_stats_backward);
  constexpr Kernel<TokenStatsBackward> full PGEST_KERNEL(token_stats_full_backward);
  refuse(run(args.plain() ? plain : full, grad_logits, args, args.in.num_rows, args.in.rows.vocab), args.in);
  return backward.grad_temperature;
}

std::tuple<Tensor, Tensor> token_stats_backward(
    Tensor logits, Optional tokens, Optional bias, double softcap, Optional temperature,
    Optional threshold, Optional mask, Optional reference_logits, Optional values,
    Optional value_tokens, Tensor state, Optional grad_logp, Optional grad_entropy,
    Optional grad_lse, Optional grad_kl, Optional grad_reverse_kl, Optional grad_value,
    bool by_temperature) {
  const Input input = make_input(logits, tokens, bias, softcap, temperature, threshold, mask,
                                 reference_logits, values, value_tokens);
  Tensor grad_logits = fresh_like(logits);
  Tensor grad_temperature = run_backward(
      input, state,
      {&grad_logp, &grad_entropy, &grad_lse, &grad_kl, &grad_reverse_kl, &grad_value},
      by_temperature, false, grad_logits);
  return {grad_logits, grad_temperature};
}

Tensor token_stats_backward_(Tensor logits, Optional tokens, Optional bias, double softcap,
                             Optional temperature, Optional threshold, Optional mask,
                             Optional reference_logits, Optional values, Optional value_tokens,
                             Tensor state, Optional grad_logp, Optional grad_entropy,
                             Optional grad_lse, Optional grad_kl, Optional grad_reverse_kl,
                             Optional grad_value, bool by_temperature) {
  const Input input = make_input(logits, tokens, bias, softcap, temperature, threshold, mask,
                                 reference_logits, values, value_tokens);
  check_overwritten(input, logits);
  return run_backward(
      input, state,
      {&grad_logp, &grad_entropy, &grad_lse, &grad_kl, &grad_reverse_kl, &grad_value},
      by_temperature, true, logits);
}

template <class Library>
void implement(Library& library) {
  library.impl("token_stats", TORCH_BOX(&token_stats));
  library.impl("token_stats_backward", TORCH_BOX(&token_stats_backward));
  library.impl("token_stats_backward_", TORCH_BOX(&token_stats_backward_));
}

}  // namespace
}  // namespace pgest::ops

PGEST_IMPLEMENT(pgest::ops::implement)
