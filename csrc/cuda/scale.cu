// A gradient that is there already, times what its loss was multiplied with: a number on the device, which
// nobody waits for. Where it is 1, all that is left is the launch.

#include "../kernels/scale.h"

#include "storage.h"
#include "team.h"

namespace pgest {
namespace cuda {
namespace {

constexpr int64_t kScaleBlocks = 4096;  // enough for every device, and soon over

template <class T, int kLanes>
__global__ void __launch_bounds__(TeamOf<kLanes>::kThreads, kResident<T, kLanes>) scale_kernel(const Scale args) {
  using A = Acc<T>;
  using Team = TeamOf<kLanes>;
  const A by = *static_cast<const A*>(args.by);
  if (by == 1) return;
  for_rows<Team>(args.num_rows, [&](int64_t r) {
    T* x = static_cast<T*>(args.x) + args.rows.offset(r);
    for_chunks<Team>(x, args.rows.vocab, [&](int64_t at, int n, const auto& chunk) {
      A y[kChunk];
      load_chunk(x + at, n, y, A(0), chunk);
#pragma unroll
      for (int i = 0; i < kChunk; ++i) y[i] *= by;
      store(x + at, n, y);
    });
  });
}

}  // namespace
}  // namespace cuda

using namespace cuda;

const char* scale_cuda(const Scale& args, void* stream) {
  Geometry g = geometry(args.num_rows, args.rows.vocab, args.dtype);
  g.blocks = g.blocks < kScaleBlocks ? g.blocks : kScaleBlocks;
  return with_type(args.dtype, [&]<class T>() {
    return with_lanes<T>(g.lanes, [&]<int kLanes>() { return launch(scale_kernel<T, kLanes>, g, args, stream); });
  });
}

}  // namespace pgest
