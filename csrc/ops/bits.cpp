// bit_stats, its gradient, and sample_bits: allocation, dispatch.

#include "../kernels/bits.h"

#include "common.h"

namespace pgest::ops {
namespace {

using Shape = std::vector<int64_t>;

struct Input {
  BitRows in;
  Optional logits, bits;
};

Input make_input(const Tensor& logits, const Optional& bits, bool joint) {
  if (logits.dim() == 0) throw std::runtime_error("pgest: logits must have a last dimension of bits");
  Input input;
  BitRows& in = input.in;
  in.dtype = dtype_of(logits);
  in.width = logits.size(logits.dim() - 1);
  in.num_rows = in.width == 0 ? 0 : logits.numel() / in.width;
  in.joint = joint;
  input.logits = packed(logits, logits, logits.scalar_type(), logits.numel(), "logits");
  in.logits = data(input.logits);
  if (bits) {
    if (bits->dim() == 0) throw std::runtime_error("pgest: bits must have a dimension of samples");
    in.num_samples = bits->size(0);
    in.bytes = bits->scalar_type() == ScalarType::Bool || bits->scalar_type() == ScalarType::Byte;
    input.bits = packed(logits, bits, in.bytes ? bits->scalar_type() : logits.scalar_type(),
                        in.num_samples * logits.numel(), "bits");
    in.bits = data(input.bits);
  }
  return input;
}

// [num_samples if given, rows of logits, width unless joint]
Shape shape_of(const Tensor& logits, const Tensor* bits, bool joint) {
  Shape shape = leading(logits);
  if (!joint) shape.push_back(logits.size(logits.dim() - 1));
  if (bits) shape.insert(shape.begin(), bits->size(0));
  return shape;
}

void refuse(const Refusal& refusal) {
  if (refusal.kind == Refusal::bit)
    throw std::runtime_error("pgest: bits must be from 0 to 1, got others in row " +
                             std::to_string(refusal.row) + ", sample " +
                             std::to_string(refusal.sample));
  if (refusal.kind == Refusal::noise)
    throw std::runtime_error("pgest: noise must be uniforms in [0, 1), got others in sample " +
                             std::to_string(refusal.sample));
  if (refusal.kind == Refusal::nan) throw std::runtime_error("pgest: logits must not be NaN");
}

std::tuple<Tensor, Tensor> bit_stats(Tensor logits, Optional bits, bool entropy, bool joint) {
  const Input input = make_input(logits, bits, joint);
  const ScalarType dtype = statistics_dtype(logits);
  const Tensor* samples = bits ? &*bits : nullptr;
  Tensor logp = torch::stable::new_empty(
      logits, samples ? shape_of(logits, samples, joint) : Shape{0}, dtype);
  Tensor entropy_out = torch::stable::new_empty(
      logits, entropy ? shape_of(logits, nullptr, joint) : Shape{0}, dtype);
  if (input.in.width == 0 && joint) {  // an empty sum
    torch::stable::fill_(logp, 0);
    torch::stable::fill_(entropy_out, 0);
  }
  BitStatsForward args{input.in};
  if (samples) args.logp_out = logp.mutable_data_ptr();
  if (entropy) args.entropy_out = entropy_out.mutable_data_ptr();
  const int64_t work = input.in.width * (1 + input.in.num_samples);
  constexpr Kernel<BitStatsForward> kernel PGEST_KERNEL(bit_stats);
  refuse(run(kernel, logits, args, input.in.num_rows, work));
  return {logp, entropy_out};
}

Tensor bit_stats_backward(Tensor logits, Optional bits, Optional grad_logp, Optional grad_entropy,
                          bool joint) {
  const Input input = make_input(logits, bits, joint);
  const ScalarType dtype = statistics_dtype(logits);
  if (grad_logp && !bits) throw std::runtime_error("pgest: grad_logp needs bits");
  const int64_t each = joint ? input.in.num_rows : logits.numel();
  const Optional by_logp = packed(logits, grad_logp, dtype, input.in.num_samples * each, "grad_logp");
  const Optional by_entropy = packed(logits, grad_entropy, dtype, each, "grad_entropy");
  Tensor grad_logits = fresh_like(logits);
  const BitStatsBackward args{input.in, data(by_logp), data(by_entropy),
                              grad_logits.mutable_data_ptr()};
  const int64_t work = input.in.width * (1 + input.in.num_samples);
  constexpr Kernel<BitStatsBackward> kernel PGEST_KERNEL(bit_stats_backward);
  refuse(run(kernel, logits, args, input.in.num_rows, work));
  return grad_logits;
}

Tensor sample_bits(Tensor logits, int64_t num_samples, bool antithetic, Optional seed, Optional noise,
                   ScalarType dtype) {
  const int64_t draws = antithetic ? num_samples / 2 : num_samples;
  const bool bytes = dtype == ScalarType::Bool || dtype == ScalarType::Byte;
  if (!seed && !noise) throw std::runtime_error("pgest: sample_bits needs a seed or noise");
  if (num_samples < 0 || (antithetic && num_samples % 2))
    throw std::runtime_error("pgest: num_samples must be even for antithetic pairs, and not negative");
  if (!bytes && dtype != logits.scalar_type())
    throw std::runtime_error("pgest: dtype must be bool, uint8 or that of logits");
  const Optional held = packed(logits, logits, logits.scalar_type(), logits.numel(), "logits");
  const Optional held_seed = packed(logits, seed, ScalarType::Long, 1, "seed");
  const Optional uniforms =
      packed(logits, noise, statistics_dtype(logits), draws * logits.numel(), "noise");
  Shape shape(logits.sizes().begin(), logits.sizes().end());
  shape.insert(shape.begin(), num_samples);
  Tensor out = torch::stable::new_empty(logits, shape, dtype);
  SampleBits args{dtype_of(logits), logits.numel(), num_samples, antithetic, bytes, data(held)};
  args.seed = static_cast<const int64_t*>(data(held_seed));
  args.uniforms = data(uniforms);
  args.out = out.mutable_data_ptr();
  const int64_t blocks = (args.numel + kBitBlock - 1) / kBitBlock;
  constexpr Kernel<SampleBits> kernel PGEST_KERNEL(sample_bits);
  refuse(run(kernel, logits, args, blocks, kBitBlock * (1 + draws)));
  return out;
}

template <class Library>
void implement(Library& library) {
  library.impl("bit_stats", TORCH_BOX(&bit_stats));
  library.impl("bit_stats_backward", TORCH_BOX(&bit_stats_backward));
  library.impl("sample_bits", TORCH_BOX(&sample_bits));
}

}  // namespace
}  // namespace pgest::ops

PGEST_IMPLEMENT(pgest::ops::implement)
