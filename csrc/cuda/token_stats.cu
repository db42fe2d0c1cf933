// token_stats on CUDA: a team of threads per row.

#include "plain_row.h"

namespace pgest {
namespace cuda {
namespace {

template <class T, int kLanes>
__global__ void __launch_bounds__(TeamOf<kLanes>::kThreads, kResident<T, kLanes>)
    forward_kernel(const TokenStatsForward args) {
  using Team = TeamOf<kLanes>;
  for_rows<Team>(args.in.num_rows, [&](int64_t r) { forward_row<Team, T>(args, r); });
}

template <class T, int kLanes, bool kTemperature>
__global__ void __launch_bounds__(kTemperature ? kSmallBlock<kLanes> : TeamOf<kLanes>::kThreads,
                                  kTemperature ? kSmallBlocks<T, kLanes> : kResident<T, kLanes>)
    backward_kernel(const TokenStatsBackward args) {
  using Team = TeamOf<kLanes>;
  const TokenStatsInput& in = args.in;
  for_rows<Team>(in.num_rows, [&](int64_t r) {
    backward_row<Team, kTemperature, T>(args, r, [&] {
      return RowState{args.state[r], args.state[in.num_rows + r], args.state[2 * in.num_rows + r]};
    });
  });
}

}  // namespace
}  // namespace cuda

using namespace cuda;

const char* token_stats_forward_cuda(const TokenStatsForward& args, void* stream) {
  const Geometry g = geometry(args.in.num_rows, args.in.rows.vocab, args.in.dtype);
  return with_type(args.in.dtype, [&]<class T>() {
    return with_lanes<T>(g.lanes, [&]<int kLanes>() { return launch(forward_kernel<T, kLanes>, g, args, stream); });
  });
}

const char* token_stats_backward_cuda(const TokenStatsBackward& args, void* stream) {
  const Geometry g = geometry(args.in.num_rows, args.in.rows.vocab, args.in.dtype);
  return with_type(args.in.dtype, [&]<class T>() {
    return with_lanes<T>(g.lanes, [&]<int kLanes>() {
      return args.grad_temperature ? launch(backward_kernel<T, kLanes, true>, in_small_blocks(g), args, stream)
                                   : launch(backward_kernel<T, kLanes, false>, g, args, stream);
    });
  });
}

}  // namespace pgest
