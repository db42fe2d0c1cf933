// gumbel_softmax and its gradients: allocation, dispatch.

#include "../kernels/relaxed.h"

#include "common.h"

namespace pgest::ops {
namespace {

struct Input {
  HeldRows rows;
  NoisyRows in;
  Optional seed, noise;
};

Input make_input(const Tensor& logits, const Optional& temperature, const Optional& seed,
                 const Optional& noise) {
  Input input{hold_rows(logits, std::nullopt, 0, temperature, std::nullopt, std::nullopt), {}, {}, {}};
  static_cast<LogitRows&>(input.in) = input.rows.in;
  input.seed = packed(logits, seed, ScalarType::Long, 1, "seed");
  input.noise = packed(logits, noise, statistics_dtype(logits), logits.numel(), "noise");
  input.in.seed = static_cast<const int64_t*>(data(input.seed));
  input.in.uniforms = data(input.noise);
  return input;
}

void refuse(const Refusal& refusal, const LogitRows& in) {
  refuse_temperature(refusal, in, "tau");
  if (refusal.kind == Refusal::noise)
    throw std::runtime_error("pgest: noise must be uniforms in [0, 1), got others in row " +
                             std::to_string(refusal.row));
}

Tensor gumbel_softmax(Tensor logits, Optional temperature, Optional seed, Optional noise, bool hard) {
  if (!seed && !noise) throw std::runtime_error("pgest: gumbel_softmax needs a seed or noise");
  const Input input = make_input(logits, temperature, seed, noise);
  Tensor out = fresh_like(logits);
  const GumbelSoftmaxForward args{input.in, hard, out.mutable_data_ptr()};
  constexpr Kernel<GumbelSoftmaxForward> kernel PGEST_KERNEL(gumbel_softmax);
  refuse(run(kernel, logits, args, args.in.num_rows, args.in.rows.vocab), args.in);
  return out;
}

std::tuple<Tensor, Tensor> run_backward(const Input& input, const Optional& soft, const Tensor& grad,
                                        bool by_temperature) {
  const NoisyRows& in = input.in;
  const ScalarType dtype = input.rows.logits.scalar_type();
  const int64_t numel = in.num_rows * in.rows.vocab;
  const Optional held_soft = packed(grad, soft, dtype, numel, "soft");
  const Optional held_grad = packed(grad, grad, dtype, numel, "grad");
  Tensor grad_logits = fresh_like(grad);
  Tensor grad_temperature = torch::stable::new_empty(
      grad, by_temperature ? leading(grad) : std::vector<int64_t>{0}, ScalarType::Double);
  SoftmaxBackward args{in, data(held_soft), data(held_grad), grad_logits.mutable_data_ptr()};
  if (by_temperature)
    args.grad_temperature = static_cast<double*>(grad_temperature.mutable_data_ptr());
  constexpr Kernel<SoftmaxBackward> kernel PGEST_KERNEL(softmax_backward);
  refuse(run(kernel, grad, args, in.num_rows, in.rows.vocab), in);
  return {grad_logits, grad_temperature};
}

std::tuple<Tensor, Tensor> gumbel_softmax_backward(Tensor soft, Tensor grad, Optional temperature,
                                                   bool by_temperature) {
  const Input input = make_input(soft, temperature, std::nullopt, std::nullopt);
  return run_backward(input, soft, grad, by_temperature);
}

std::tuple<Tensor, Tensor> gumbel_softmax_hard_backward(Tensor logits, Optional temperature,
                                                        Optional seed, Optional noise, Tensor grad,
                                                        bool by_temperature) {
  const Input input = make_input(logits, temperature, seed, noise);
  return run_backward(input, std::nullopt, grad, by_temperature);
}

template <class Library>
void implement(Library& library) {
  library.impl("gumbel_softmax", TORCH_BOX(&gumbel_softmax));
  library.impl("gumbel_softmax_backward", TORCH_BOX(&gumbel_softmax_backward));
  library.impl("gumbel_softmax_hard_backward", TORCH_BOX(&gumbel_softmax_hard_backward));
}

}  // namespace
}  // namespace pgest::ops

PGEST_IMPLEMENT(pgest::ops::implement)
