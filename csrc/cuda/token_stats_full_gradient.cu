// Statistics and their gradient in one go on CUDA, with all that token_stats can be given and asked for.

#include "full_backward.h"
#include "full_forward.h"

namespace pgest {
namespace cuda {
namespace {

template <class T, int kLanes, bool kReference>
__global__ void __launch_bounds__(kSmallBlock<kLanes>, kLargeBlocks<kLanes>)
    full_gradient_kernel(const __grid_constant__ TokenStatsGradient args) {
  using Team = TeamOf<kLanes>;
  for_rows<Team>(args.forward.in.num_rows, [&](int64_t r) {
    full_forward_row<Team, kReference, T>(args.forward, r);
    Team::sync();  // one thread wrote the state; and the gradient may lie over what others still read
    full_backward_row<Team, kReference, T>(args.backward, r);
  });
}

}  // namespace
}  // namespace cuda

using namespace cuda;

const char* token_stats_full_gradient_cuda(const TokenStatsGradient& args, void* stream) {
  const TokenStatsInput& in = args.forward.in;
  const Geometry g = in_small_blocks(geometry(in.num_rows, in.rows.vocab, in.dtype, kFewestLanes));
  return with_type(in.dtype, [&]<class T>() {
    return with_lanes<T, kFewestLanes>(g.lanes, [&]<int kLanes>() {
      return args.forward.compared() ? launch(full_gradient_kernel<T, kLanes, true>, g, args, stream)
                                     : launch(full_gradient_kernel<T, kLanes, false>, g, args, stream);
    });
  });
}

}  // namespace pgest
