// Statistics and their gradient in one go on CUDA: the team that has read a row for its statistics makes its
// gradient at once, and finds the row in L2.

#include "plain_row.h"

namespace pgest {
namespace cuda {
namespace {

// The small teams need a few more registers.
template <class T, int kLanes>
constexpr int kGradientBlocks = kLanes == kWholeBlock ? kResident<T, kLanes> : kSmallBlocks<T, kLanes>;

template <class T, int kLanes>
__global__ void __launch_bounds__(TeamOf<kLanes>::kThreads, kGradientBlocks<T, kLanes>)
    gradient_kernel(const __grid_constant__ TokenStatsGradient args) {
  using Team = TeamOf<kLanes>;
  for_rows<Team>(args.forward.in.num_rows, [&](int64_t r) {
    const RowState state = forward_row<Team, T>(args.forward, r);
    Team::sync();  // the gradient may lie over the logits that others still read
    backward_row<Team, false, T>(args.backward, r, [&] { return state; });
  });
}

const char* plain(const TokenStatsGradient& args, void* stream) {
  const TokenStatsInput& in = args.forward.in;
  const Geometry g = geometry(in.num_rows, in.rows.vocab, in.dtype);
  return with_type(in.dtype, [&]<class T>() {
    return with_lanes<T>(g.lanes, [&]<int kLanes>() { return launch(gradient_kernel<T, kLanes>, g, args, stream); });
  });
}

const char* one_after_the_other(const TokenStatsGradient& args, void* stream) {
  const auto& [forward, backward] = args;
  const auto run_forward = forward.plain() ? token_stats_forward_cuda : token_stats_full_forward_cuda;
  const auto run_backward = backward.plain() ? token_stats_backward_cuda : token_stats_full_backward_cuda;
  const char* error = run_forward(forward, stream);
  return error ? error : run_backward(backward, stream);
}

}  // namespace
}  // namespace cuda

using namespace cuda;

// A kernel for both directions adds up in the order of each alone, so that the bits are the same. Where
// theirs have different teams or read different rows there is none, but two launches; nor are there large
// kernels for short rows, and for float64, which compilers would spend minutes on.
const char* token_stats_gradient_cuda(const TokenStatsGradient& args, void* stream) {
  const auto& [forward, backward] = args;
  const TokenStatsInput& in = forward.in;
  if (forward.plain() && backward.plain() && !backward.grad_temperature) return plain(args, stream);
  const bool alike = !forward.plain() && !backward.plain() && forward.compared() == backward.compared();
  const bool large = lanes_for(in.rows.vocab) == kWholeBlock && in.dtype != DType::f64;
  return alike && large ? token_stats_full_gradient_cuda(args, stream) : one_after_the_other(args, stream);
}

}  // namespace pgest
