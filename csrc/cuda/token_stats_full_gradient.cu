// Statistics and their gradient in one go on CUDA, with all that token_stats can be given and asked for.

#include "full_backward.h"
#include "full_forward.h"

namespace pgest {
namespace cuda {
namespace {

using Team = TeamOf<kWholeBlock>;

template <class T, bool kReference>
__global__ void __launch_bounds__(kSmallBlock<kWholeBlock>, kLargeBlocks<kWholeBlock>)
    full_gradient_kernel(const __grid_constant__ TokenStatsGradient args) {
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
    if constexpr (sizeof(T) == 8) {
      return "float64 has no kernel for both directions";
    } else {
      return args.forward.compared() ? launch(full_gradient_kernel<T, true>, g, args, stream)
                                     : launch(full_gradient_kernel<T, false>, g, args, stream);
    }
  });
}

}  // namespace pgest
