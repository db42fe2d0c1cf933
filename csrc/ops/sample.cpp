// sample: allocation, dispatch.

#include "../kernels/sample.h"

#include "common.h"

namespace pgest::ops {
namespace {

void refuse(const Refusal& refusal, const Sample& args) {
  refuse_temperature(refusal, args.in);
  const std::string row = std::to_string(refusal.row);
  if (refusal.kind == Refusal::row_values)
    throw std::runtime_error("pgest: logits must have a possible token in each row, and neither NaN "
                             "nor +inf, got row " + row + " without");
  if (refusal.kind == Refusal::noise)
    throw std::runtime_error("pgest: noise must be uniforms in [0, 1), got others in row " + row);
  if (refusal.kind == Refusal::possible)
    throw std::runtime_error("pgest: num_samples must be at most the number of possible tokens of "
                             "each row without replacement, got " +
                             std::to_string(args.num_samples) + " where row " + row + " has " +
                             std::to_string(refusal.sample));
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> sample(Tensor logits, Optional bias, double softcap,
                                                          Optional temperature, Optional threshold,
                                                          Optional mask, Tensor noise, int64_t method,
                                                          int64_t num_samples, bool entropy) {
  const HeldRows held = hold_rows(logits, bias, softcap, temperature, threshold, mask);
  Sample args{held.in};
  if (method < kIndependent || method > kWithoutReplacement)
    throw std::runtime_error("pgest: method must be from 0 to 3, got " + std::to_string(method));
  if (num_samples < 0) throw std::runtime_error("pgest: num_samples must not be negative");
  args.method = static_cast<Method>(method);
  args.num_samples = num_samples;
  args.entropy = entropy;
  const bool distinct = args.method == kWithoutReplacement;
  const int64_t uniforms = count_of_uniforms(args.method, num_samples) * args.in.num_rows;
  const Optional given = packed(logits, noise, ScalarType::Double, uniforms, "noise");

  const std::vector<int64_t> batch = leading(logits), none{0};
  std::vector<int64_t> shape = batch, state_shape = batch;
  shape.insert(shape.begin(), num_samples);
  state_shape.insert(state_shape.begin(), 3);
  const ScalarType dtype = statistics_dtype(logits);
  Tensor tokens_out = torch::stable::new_empty(logits, shape, ScalarType::Long);
  Tensor logp_out = torch::stable::new_empty(logits, shape, dtype);
  Tensor entropy_out = torch::stable::new_empty(logits, entropy ? batch : none, dtype);
  Tensor perturbed_out =
      torch::stable::new_empty(logits, distinct ? shape : none, ScalarType::Double);
  Tensor state_out = torch::stable::new_empty(logits, state_shape, ScalarType::Double);

  args.noise = static_cast<const double*>(data(given));
  args.tokens_out = static_cast<int64_t*>(tokens_out.mutable_data_ptr());
  args.logp_out = logp_out.mutable_data_ptr();
  args.entropy_out = entropy_out.mutable_data_ptr();
  if (distinct) args.perturbed_out = static_cast<double*>(perturbed_out.mutable_data_ptr());
  args.state_out = static_cast<double*>(state_out.mutable_data_ptr());
  constexpr Kernel<Sample> kernel PGEST_KERNEL(sample);
  refuse(run(kernel, logits, args, args.in.num_rows, args.in.rows.vocab), args);
  return {logp_out, entropy_out, tokens_out, perturbed_out, state_out};
}

template <class Library>
void implement(Library& library) {
  library.impl("sample", TORCH_BOX(&sample));
}

}  // namespace
}  // namespace pgest::ops

PGEST_IMPLEMENT(pgest::ops::implement)
