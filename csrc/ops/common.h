// What the files of this folder share: the only files that see torch. They do the last checks,
// allocate and dispatch; schemas, fake kernels and autograd live in pgest/ops, where what a user can
// get wrong is refused by name.
#pragma once

#include <cmath>
#include <cstdio>
#include <optional>
#include <tuple>
#include <vector>

#include "device.h"

namespace pgest::ops {

using torch::headeronly::ScalarType;
using Optional = std::optional<Tensor>;

// Fresh memory from this size on comes from the operating system, page by page.
constexpr int64_t kHugePageBytes = int64_t{8} << 20;

inline DType dtype_of(const Tensor& t) {
  switch (t.scalar_type()) {
    case ScalarType::Double: return DType::f64;
    case ScalarType::Float: return DType::f32;
    case ScalarType::BFloat16: return DType::bf16;
    case ScalarType::Half: return DType::f16;
    default: throw std::runtime_error("pgest: logits must be float64, float32, bfloat16 or float16");
  }
}

inline ScalarType statistics_dtype(const Tensor& logits) {
  return logits.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

inline int64_t element_bytes(const Tensor& t) {
  switch (dtype_of(t)) {
    case DType::f64: return 8;
    case DType::f32: return 4;
    default: return 2;
  }
}

inline std::vector<int64_t> leading(const Tensor& t) {
  return std::vector<int64_t>(t.sizes().begin(), t.sizes().end() - 1);
}

// Leading dimensions of `logits`, neighbours that are contiguous to each other fused.
// False if the vocabulary is strided or too many dimensions are left.
inline bool rows_of(const Tensor& logits, Rows& rows) {
  const auto sizes = logits.sizes();
  const auto strides = logits.strides();
  const int64_t last = logits.dim() - 1;
  rows = Rows{};
  rows.vocab = sizes[last];
  if (rows.vocab > 1 && strides[last] != 1) return false;
  for (int64_t d = 0; d < last; ++d) {
    if (sizes[d] == 1) continue;
    if (rows.ndim > 0 && rows.strides[rows.ndim - 1] == sizes[d] * strides[d]) {
      rows.sizes[rows.ndim - 1] *= sizes[d];
      rows.strides[rows.ndim - 1] = strides[d];
      continue;
    }
    if (rows.ndim == kMaxRowDims) return false;
    rows.sizes[rows.ndim] = sizes[d];
    rows.strides[rows.ndim++] = strides[d];
  }
  return true;
}

inline const void* data(const Optional& t) { return t ? t->const_data_ptr() : nullptr; }

inline Optional packed(const Tensor& like, const Optional& t, ScalarType dtype, int64_t numel,
                       const char* name) {
  if (!t) return std::nullopt;
  if (t->scalar_type() != dtype || t->numel() != numel || !same_device(*t, like))
    throw std::runtime_error(std::string("pgest: ") + name + " has the wrong dtype, size or device");
  return torch::stable::contiguous(*t);
}

// Rows of logits for the kernels, and the tensors that their pointers point into.
struct HeldRows {
  LogitRows in;
  Tensor logits;
  Optional bias, temperature, threshold, mask;
};

inline HeldRows hold_rows(const Tensor& logits, const Optional& bias, double softcap,
                          const Optional& temperature, const Optional& threshold,
                          const Optional& mask) {
  if (logits.dim() == 0 || logits.size(logits.dim() - 1) == 0)
    throw std::runtime_error("pgest: logits must have a last dimension of at least one token");
  HeldRows held{{}, logits, {}, {}, {}, {}};
  LogitRows& in = held.in;
  in.dtype = dtype_of(logits);
  in.num_rows = logits.numel() / logits.size(logits.dim() - 1);
  if (!rows_of(held.logits, in.rows)) {
    held.logits = torch::stable::contiguous(logits);
    rows_of(held.logits, in.rows);
  }
  held.bias = packed(logits, bias, statistics_dtype(logits), in.rows.vocab, "bias");
  held.temperature = packed(logits, temperature, ScalarType::Double, in.num_rows, "temperature");
  held.threshold = packed(logits, threshold, ScalarType::Double, in.num_rows, "threshold");
  held.mask = packed(logits, mask, ScalarType::Bool, in.num_rows, "mask");
  in.logits = held.logits.const_data_ptr();
  in.bias = data(held.bias);
  in.softcap = softcap;
  in.temperature = static_cast<const double*>(data(held.temperature));
  in.threshold = static_cast<const double*>(data(held.threshold));
  in.mask = static_cast<const bool*>(data(held.mask));
  return held;
}

// Fresh memory like `like`, with huge pages where that pays.
inline Tensor fresh_like(const Tensor& like) {
  Tensor fresh = torch::stable::new_empty(
      like, std::vector<int64_t>(like.sizes().begin(), like.sizes().end()));
  const int64_t bytes = like.numel() * element_bytes(like);
  if (like.is_cpu() && bytes >= kHugePageBytes) advise_huge_pages(fresh.mutable_data_ptr(), bytes);
  return fresh;
}

inline void refuse_temperature(const Refusal& refusal, const LogitRows& in,
                               const char* name = "temperature") {
  if (refusal.kind != Refusal::temperature) return;
  const double temperature = in.temperature[refusal.row];
  const bool fair = temperature > 0 && std::isfinite(temperature);
  char got[32];
  std::snprintf(got, sizeof got, fair ? "%g" : "%f", temperature);
  const char* range = !fair                      ? "positive and finite"
                      : in.dtype == DType::f64 ? "from 1e-308 to 1e+307 for float64 statistics"
                                                 : "from 1e-38 to 1e+38 for float32 statistics";
  throw std::runtime_error(std::string("pgest: ") + name + " must be " + range + ", got " + got +
                           " in row " + std::to_string(refusal.row));
}

}  // namespace pgest::ops
