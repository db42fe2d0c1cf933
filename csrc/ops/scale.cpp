// Gradients that are there already, times what their loss was multiplied with.

#include "../kernels/scale.h"

#include "common.h"

namespace pgest::ops {
namespace {

void scale_(Tensor x, Tensor by) {
  const Optional held = packed(x, by, statistics_dtype(x), 1, "by");
  Scale args{dtype_of(x), {}};
  if (x.dim() == 0 || !rows_of(x, args.rows))
    throw std::runtime_error("pgest: x must have rows with a contiguous last dimension");
  args.num_rows = args.rows.vocab == 0 ? 0 : x.numel() / args.rows.vocab;
  args.x = x.mutable_data_ptr();
  args.by = data(held);
  constexpr Kernel<Scale> kernel PGEST_KERNEL(scale);
  run(kernel, x, args, args.num_rows, args.rows.vocab);
}

template <class Library>
void implement(Library& library) {
  library.impl("scale_", TORCH_BOX(&scale_));
}

}  // namespace
}  // namespace pgest::ops

PGEST_IMPLEMENT(pgest::ops::implement)
