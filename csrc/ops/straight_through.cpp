// straight_through and its gradient: allocation, dispatch.

#include "../kernels/relaxed.h"

#include "common.h"

namespace pgest::ops {
namespace {

void refuse(const Refusal& refusal, const LogitRows& in) {
  refuse_temperature(refusal, in);
  const std::string row = std::to_string(refusal.row);
  if (refusal.kind == Refusal::one_hot)
    throw std::runtime_error("pgest: sample must be one-hot, zeros but for a single 1, got another row " +
                             row);
  if (refusal.kind == Refusal::token)
    throw std::runtime_error("pgest: sample must have tokens in [0, " +
                             std::to_string(in.rows.vocab) + "), got another in row " + row);
}

Jacobian jacobian_of(const std::string& name) {
  if (name == "reinmax") return Jacobian::reinmax;
  if (name == "straight_through") return Jacobian::straight_through;
  throw std::runtime_error("pgest: jacobian must be straight_through or reinmax, got " + name);
}

std::tuple<Tensor, Tensor> straight_through(Tensor logits, Tensor sample, Optional temperature,
                                            std::string jacobian) {
  jacobian_of(jacobian);
  const HeldRows rows =
      hold_rows(logits, std::nullopt, 0, temperature, std::nullopt, std::nullopt);
  const bool integers = sample.scalar_type() == ScalarType::Long;
  const Optional held = packed(logits, sample, integers ? ScalarType::Long : logits.scalar_type(),
                               integers ? rows.in.num_rows : logits.numel(), "sample");
  Tensor out = fresh_like(logits);
  Tensor tokens = torch::stable::new_empty(logits, leading(logits), ScalarType::Long);
  StraightThroughForward args{rows.in};
  if (integers) {
    args.tokens = static_cast<const int64_t*>(data(held));
  } else {
    args.one_hot = data(held);
  }
  args.tokens_out = static_cast<int64_t*>(tokens.mutable_data_ptr());
  args.out = out.mutable_data_ptr();
  constexpr Kernel<StraightThroughForward> kernel PGEST_KERNEL(straight_through);
  refuse(run(kernel, logits, args, rows.in.num_rows, rows.in.rows.vocab), rows.in);
  return {out, tokens};
}

Tensor straight_through_backward(Tensor logits, Tensor tokens, Optional temperature, Tensor grad,
                                 std::string jacobian) {
  const HeldRows rows =
      hold_rows(logits, std::nullopt, 0, temperature, std::nullopt, std::nullopt);
  const Optional held_tokens = packed(logits, tokens, ScalarType::Long, rows.in.num_rows, "tokens");
  const Optional held_grad = packed(logits, grad, logits.scalar_type(), logits.numel(), "grad");
  Tensor grad_logits = fresh_like(logits);
  StraightThroughBackward args{rows.in, static_cast<const int64_t*>(data(held_tokens))};
  args.jacobian = jacobian_of(jacobian);
  args.grad = data(held_grad);
  args.grad_logits = grad_logits.mutable_data_ptr();
  constexpr Kernel<StraightThroughBackward> kernel PGEST_KERNEL(straight_through_backward);
  refuse(run(kernel, logits, args, rows.in.num_rows, rows.in.rows.vocab), rows.in);
  return grad_logits;
}

template <class Library>
void implement(Library& library) {
  library.impl("straight_through", TORCH_BOX(&straight_through));
  library.impl("straight_through_backward", TORCH_BOX(&straight_through_backward));
}

}  // namespace
}  // namespace pgest::ops

PGEST_IMPLEMENT(pgest::ops::implement)
