// Memory of the size of logits that Python allocates and torch's own products fill.

#include "common.h"

namespace pgest::ops {
namespace {

// The argument again: an op without a result would be taken for one without an effect.
Tensor advise_huge_pages_(Tensor x) {
  const int64_t bytes = x.numel() * element_bytes(x);
  if (bytes >= kHugePageBytes) pgest::advise_huge_pages(x.mutable_data_ptr(), bytes);
  return x;
}

}  // namespace
}  // namespace pgest::ops

STABLE_TORCH_LIBRARY_IMPL(pgest, CPU, m) {
  m.impl("advise_huge_pages_", TORCH_BOX(&pgest::ops::advise_huge_pages_));
}
