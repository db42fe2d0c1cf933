// row_threshold: allocation, dispatch.

#include "../kernels/row_threshold.h"

#include <cmath>

#include "common.h"

namespace pgest::ops {
namespace {

Tensor row_threshold(Tensor logits, Optional bias, double softcap, Optional temperature,
                     Optional mask, int64_t top_k, double top_p, double min_p) {
  const HeldRows held = hold_rows(logits, bias, softcap, temperature, std::nullopt, mask);
  Tensor out = torch::stable::new_empty(logits, leading(logits), ScalarType::Double);
  RowThreshold args{held.in};
  if (top_k > 0) args.top_k = top_k;
  args.top_p = top_p;
  args.log_min_p = std::log(min_p);
  args.out = static_cast<double*>(out.mutable_data_ptr());
  constexpr Kernel<RowThreshold> kernel PGEST_KERNEL(row_threshold);
  refuse_temperature(run(kernel, logits, args, args.in.num_rows, args.in.rows.vocab), args.in);
  return out;
}

template <class Library>
void implement(Library& library) {
  library.impl("row_threshold", TORCH_BOX(&row_threshold));
}

}  // namespace
}  // namespace pgest::ops

PGEST_IMPLEMENT(pgest::ops::implement)
