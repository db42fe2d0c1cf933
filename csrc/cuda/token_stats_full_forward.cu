// token_stats on CUDA with all that it can be given and asked for.

#include "full_forward.h"

namespace pgest {
namespace cuda {
namespace {

template <class T, int kLanes, bool kReference>
__global__ void __launch_bounds__(kSmallBlock<kLanes>, kReference ? kLargeBlocks<kLanes> : kSmallBlocks<T, kLanes>)
    full_forward_kernel(const __grid_constant__ TokenStatsForward args) {
  using Team = TeamOf<kLanes>;
  for_rows<Team>(args.in.num_rows, [&](int64_t r) { full_forward_row<Team, kReference, T>(args, r); });
}

}  // namespace
}  // namespace cuda

using namespace cuda;

const char* token_stats_full_forward_cuda(const TokenStatsForward& args, void* stream) {
  const Geometry g =
      in_small_blocks(geometry(args.in.num_rows, args.in.rows.vocab, args.in.dtype, kFewestLanes));
  return with_type(args.in.dtype, [&]<class T>() {
    return with_lanes<T, kFewestLanes>(g.lanes, [&]<int kLanes>() {
      return args.compared() ? launch(full_forward_kernel<T, kLanes, true>, g, args, stream)
                             : launch(full_forward_kernel<T, kLanes, false>, g, args, stream);
    });
  });
}

}  // namespace pgest
