// A gradient that is there already, times what its loss was multiplied with.

#include <algorithm>

#include "../kernels/scale.h"
#include "simd.h"

namespace pgest {
namespace {

template <class T>
PGEST_CLONES void scale_rows(const Scale& args, int64_t begin, int64_t end) {
  using A = typename Accumulate<T>::type;
  const A by = *static_cast<const A*>(args.by);
  if (by == 1) return;
  A x_buffer[kConverts<T> ? kBlock : 1], y_buffer[kConverts<T> ? kBlock : 1];
  for (int64_t r = begin; r < end; ++r) {
    T* row = static_cast<T*>(args.x) + args.rows.offset(r);
    for (int64_t at = 0; at < args.rows.vocab; at += kBlock) {
      const int64_t n = std::min(kBlock, args.rows.vocab - at);
      const A* x = load_block(row + at, n, x_buffer);
      A* y = block_of(row + at, y_buffer);
#pragma omp simd
      for (int64_t i = 0; i < n; ++i) y[i] = x[i] * by;
      store_block(row + at, y, n);
    }
  }
}

}  // namespace

Refusal scale_cpu(const Scale& args, int64_t begin, int64_t end) {
  switch (args.dtype) {
    case DType::f64: scale_rows<double>(args, begin, end); break;
    case DType::f32: scale_rows<float>(args, begin, end); break;
    case DType::bf16: scale_rows<BFloat16>(args, begin, end); break;
    case DType::f16: scale_rows<Half>(args, begin, end); break;
  }
  return {};
}

}  // namespace pgest
