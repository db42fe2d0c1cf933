// The only file that sees torch: last checks, allocation, dispatch. Schemas, fake kernels and
// autograd live in pgest/ops; what a user can get wrong is refused there, by name.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "kernels.h"

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Optional = std::optional<Tensor>;

// Elements below which a second thread costs more than it saves.
constexpr int64_t kGrain = 16384;
// Fresh memory from this size on comes from the operating system, page by page.
constexpr int64_t kHugePageBytes = int64_t{8} << 20;

pgest::DType dtype_of(const Tensor& t) {
  switch (t.scalar_type()) {
    case ScalarType::Double: return pgest::DType::f64;
    case ScalarType::Float: return pgest::DType::f32;
    case ScalarType::BFloat16: return pgest::DType::bf16;
    case ScalarType::Half: return pgest::DType::f16;
    default: throw std::runtime_error("pgest: logits must be float64, float32, bfloat16 or float16");
  }
}

ScalarType statistics_dtype(const Tensor& logits) {
  return logits.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

int64_t element_bytes(const Tensor& t) {
  switch (dtype_of(t)) {
    case pgest::DType::f64: return 8;
    case pgest::DType::f32: return 4;
    default: return 2;
  }
}

std::vector<int64_t> leading(const Tensor& t) {
  return std::vector<int64_t>(t.sizes().begin(), t.sizes().end() - 1);
}

// Leading dimensions of `logits`, neighbours that are contiguous to each other fused.
// False if the vocabulary is strided or too many dimensions are left.
bool rows_of(const Tensor& logits, pgest::Rows& rows) {
  const auto sizes = logits.sizes();
  const auto strides = logits.strides();
  const int64_t last = logits.dim() - 1;
  rows = pgest::Rows{};
  rows.vocab = sizes[last];
  if (rows.vocab > 1 && strides[last] != 1) return false;
  for (int64_t d = 0; d < last; ++d) {
    if (sizes[d] == 1) continue;
    if (rows.ndim > 0 && rows.strides[rows.ndim - 1] == sizes[d] * strides[d]) {
      rows.sizes[rows.ndim - 1] *= sizes[d];
      rows.strides[rows.ndim - 1] = strides[d];
      continue;
    }
    if (rows.ndim == pgest::kMaxRowDims) return false;
    rows.sizes[rows.ndim] = sizes[d];
    rows.strides[rows.ndim++] = strides[d];
  }
  return true;
}

// Keeps what the struct points into alive.
struct Input {
  pgest::TokenStatsInput in;
  Tensor logits;
  Optional tokens, temperature, mask;
};

const void* data(const Optional& t) { return t ? t->const_data_ptr() : nullptr; }

Optional packed(const Optional& t, ScalarType dtype, int64_t numel, const char* name) {
  if (!t) return std::nullopt;
  if (t->scalar_type() != dtype || t->numel() != numel || !t->is_cpu())
    throw std::runtime_error(std::string("pgest: ") + name + " has the wrong dtype, size or device");
  return torch::stable::contiguous(*t);
}

Input make_input(const Tensor& logits, const Optional& tokens, const Optional& temperature,
                 const Optional& mask) {
  Input input{{}, logits, std::nullopt, std::nullopt, std::nullopt};
  if (logits.dim() == 0 || logits.size(logits.dim() - 1) == 0)
    throw std::runtime_error("pgest: logits must have a last dimension of at least one token");
  pgest::TokenStatsInput& in = input.in;
  in.dtype = dtype_of(logits);
  in.num_rows = logits.numel() / logits.size(logits.dim() - 1);
  if (!rows_of(input.logits, in.rows)) {
    input.logits = torch::stable::contiguous(logits);
    rows_of(input.logits, in.rows);
  }
  if (tokens) {
    in.num_samples = tokens->dim() == logits.dim() ? tokens->size(0) : 1;
    input.tokens = packed(tokens, ScalarType::Long, in.num_samples * in.num_rows, "tokens");
  }
  input.temperature = packed(temperature, ScalarType::Double, in.num_rows, "temperature");
  input.mask = packed(mask, ScalarType::Bool, in.num_rows, "mask");
  in.logits = input.logits.const_data_ptr();
  in.tokens = static_cast<const int64_t*>(data(input.tokens));
  in.temperature = static_cast<const double*>(data(input.temperature));
  in.mask = static_cast<const bool*>(data(input.mask));
  return input;
}

[[noreturn]] void refuse(const pgest::Refusal& refusal, const pgest::TokenStatsInput& in) {
  const std::string row = " in row " + std::to_string(refusal.row);
  if (refusal.kind == pgest::Refusal::temperature)
    throw std::runtime_error("pgest: temperature must be positive and finite, got " +
                             std::to_string(in.temperature[refusal.row]) + row);
  const int64_t token = in.tokens[refusal.sample * in.num_rows + refusal.row];
  throw std::runtime_error("pgest: tokens must be in [0, " + std::to_string(in.rows.vocab) +
                           ") like the last dimension of logits, got " + std::to_string(token) + row +
                           (in.num_samples > 1 ? ", sample " + std::to_string(refusal.sample) : ""));
}

// Runs a kernel over all rows, in parallel where that pays; of refusals the first row's is told.
template <class F>
void over_rows(const pgest::TokenStatsInput& in, const F& kernel) {
  std::mutex guard;
  pgest::Refusal refusal;
  const auto range = [&](int64_t begin, int64_t end) {
    const pgest::Refusal r = kernel(begin, end);
    if (r.kind == pgest::Refusal::none) return;
    const std::lock_guard<std::mutex> lock(guard);
    if (refusal.kind == pgest::Refusal::none || r.row < refusal.row) refusal = r;
  };
  const int64_t grain = std::max<int64_t>(1, kGrain / in.rows.vocab);
  if (in.num_rows <= grain) {
    range(0, in.num_rows);
  } else {
    torch::stable::parallel_for(0, in.num_rows, grain, range);
  }
  if (refusal.kind != pgest::Refusal::none) refuse(refusal, in);
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

  pgest::TokenStatsForward args{input.in, entropy};
  args.logp_out = logp_out.mutable_data_ptr();
  args.entropy_out = entropy_out.mutable_data_ptr();
  args.lse_out = lse_out.mutable_data_ptr();
  args.state_out = static_cast<double*>(state_out.mutable_data_ptr());

  over_rows(input.in, [&](int64_t begin, int64_t end) {
    return pgest::token_stats_forward_cpu(args, begin, end);
  });
  return {logp_out, entropy_out, lse_out, state_out};
}

// Fills `grad_logits` (the logits themselves if `inplace`) and returns the temperature's gradient.
Tensor run_backward(const Input& input, const Tensor& state, const Optional& grad_logp,
                    const Optional& grad_entropy, const Optional& grad_lse, bool by_temperature,
                    bool inplace, const Tensor& grad_logits) {
  const pgest::TokenStatsInput& in = input.in;
  const ScalarType dtype = statistics_dtype(input.logits);
  const Optional by_token = packed(grad_logp, dtype, in.num_samples * in.num_rows, "grad_logp");
  const Optional by_entropy = packed(grad_entropy, dtype, in.num_rows, "grad_entropy");
  const Optional by_lse = packed(grad_lse, dtype, in.num_rows, "grad_lse");
  const Optional saved = packed(state, ScalarType::Double, 3 * in.num_rows, "state");
  const std::vector<int64_t> shape =
      by_temperature ? leading(input.logits) : std::vector<int64_t>{0};
  Tensor grad_temperature = torch::stable::new_empty(input.logits, shape, ScalarType::Double);

  pgest::TokenStatsBackward args{in};
  args.state = static_cast<const double*>(data(saved));
  args.grad_logp = data(by_token);
  args.grad_entropy = data(by_entropy);
  args.grad_lse = data(by_lse);
  args.inplace = inplace;
  args.grad_logits = grad_logits.mutable_data_ptr();
  if (by_temperature)
    args.grad_temperature = static_cast<double*>(grad_temperature.mutable_data_ptr());
  over_rows(in, [&](int64_t begin, int64_t end) {
    return pgest::token_stats_backward_cpu(args, begin, end);
  });
  return grad_temperature;
}

std::tuple<Tensor, Tensor> token_stats_backward(Tensor logits, Optional tokens, Optional temperature,
                                                Optional mask, Tensor state, Optional grad_logp,
                                                Optional grad_entropy, Optional grad_lse,
                                                bool by_temperature) {
  const Input input = make_input(logits, tokens, temperature, mask);
  const std::vector<int64_t> shape(logits.sizes().begin(), logits.sizes().end());
  Tensor grad_logits = torch::stable::new_empty(logits, shape);
  const int64_t bytes = logits.numel() * element_bytes(logits);
  if (bytes >= kHugePageBytes) pgest::advise_huge_pages(grad_logits.mutable_data_ptr(), bytes);
  Tensor grad_temperature =
      run_backward(input, state, grad_logp, grad_entropy, grad_lse, by_temperature,
                   false, grad_logits);
  return {grad_logits, grad_temperature};
}

Tensor token_stats_backward_(Tensor logits, Optional tokens, Optional temperature, Optional mask,
                             Tensor state, Optional grad_logp, Optional grad_entropy,
                             Optional grad_lse, bool by_temperature) {
  const Input input = make_input(logits, tokens, temperature, mask);
  if (input.logits.const_data_ptr() != logits.const_data_ptr())
    throw std::runtime_error("pgest: grad_inplace=True needs logits with a contiguous last dimension");
  return run_backward(input, state, grad_logp, grad_entropy, grad_lse, by_temperature, true,
                      logits);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pgest, CPU, m) {
  m.impl("token_stats", TORCH_BOX(&token_stats));
  m.impl("token_stats_backward", TORCH_BOX(&token_stats_backward));
  m.impl("token_stats_backward_", TORCH_BOX(&token_stats_backward_));
}
