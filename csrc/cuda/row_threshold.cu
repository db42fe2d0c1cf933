// row_threshold on CUDA: one pass for the largest value and the row's mass, then top_k selects with
// weight 1 and target k, top_p with weight p and target top_p, mostly among few values that are kept.

#include "../kernels/row_threshold.h"

#include "../restriction.h"
#include "select.h"
#include "sums.h"

namespace pgest {
namespace cuda {
namespace {

struct Count {
  template <class A>
  __device__ uint64_t operator()(A) const {
    return 1;
  }
};

// As a multiple of 1 / unit, a power of two of which a whole row is no more than 2^62.
template <class A>
struct Mass {
  A largest, bits, unit;

  __device__ Mass(A largest, double bits, int64_t vocab)
      : largest(largest),
        bits(static_cast<A>(bits)),
        unit(static_cast<A>(uint64_t{1} << (62 - bit_width(vocab)))) {}
  __device__ uint64_t operator()(A v) const {
    return static_cast<uint64_t>(exp2_fast((v - largest) * bits) * unit);
  }
};

__device__ inline uint64_t rounded_up(double x) { return static_cast<uint64_t>(ceil(x)); }

// `highest` is the largest value of the thread's own: of at least k threads' the k-th largest is a
// bound for the row's, and not far below it.
template <class Team, class A, class S>
__device__ A top_k(S& selection, int64_t k, A highest, A largest) {
  const auto target = [k](uint64_t) { return static_cast<uint64_t>(k); };
  A lowest = std::numeric_limits<A>::lowest();
  if (k <= Team::size()) {
    selection.offer(highest);
    lowest = fmax(lowest, selection.find(-kInfinity<A>, largest, Count{}, target));
    selection.restart();
  }
  return selection.find(lowest, largest, Count{}, target);
}

// Of the values that `lowest` leaves, if any were left out. Impossible tokens are never among them.
template <class A, class S>
__device__ A top_p(S& selection, const RowThreshold& args, A lowest, const RowSums& sums, double bits) {
  const int64_t vocab = args.in.rows.vocab;
  const Mass<A> mass(static_cast<A>(sums.pivot), bits, vocab);
  const bool whole = lowest == -kInfinity<A>;
  if (whole) {
    const double bound = top_p_bound(sums.pivot, sums.s0, vocab, bits, args.top_p);
    lowest = static_cast<A>(fmax(bound, static_cast<double>(std::numeric_limits<A>::lowest())));
  }
  return selection.find(lowest, mass.largest, mass, [&](uint64_t left) {
    return rounded_up(args.top_p * (whole ? sums.s0 * mass.unit : static_cast<double>(left)));
  });
}

template <int kLanes, class T>
__device__ Acc<T> threshold_of(const Chunks<T>& row, const RowThreshold& args, double temperature) {
  using A = Acc<T>;
  using Team = TeamOf<kLanes>;
  const double bits = kLog2E / temperature;
  Running<A> running;
  row.template each<Team>(row.all(), [&](int64_t, const A* x) { running.add(x, static_cast<A>(bits)); });
  const RowSums sums = merged<Team>(running, bits);
  const A largest = static_cast<A>(sums.pivot);
  if (!(largest < kInfinity<A>) || sums.s0 != sums.s0) return std::numeric_limits<A>::quiet_NaN();
  A found = -kInfinity<A>;
  if (largest == found) return found;
  Selection<kLanes, T> selection(row);
  if (args.top_k <= args.in.rows.vocab) found = top_k<Team>(selection, args.top_k, running.highest, largest);
  if (args.top_p < 1) found = top_p(selection, args, found, sums, bits);
  return fmax(found, round_up<A>(min_p_edge(largest, temperature, args.log_min_p)));
}

template <class T, int kLanes>
__global__ void __launch_bounds__(kSmallBlock<kLanes>, kSmallBlocks<T, kLanes>)
    threshold_kernel(const RowThreshold args) {
  using A = Acc<T>;
  using Team = TeamOf<kLanes>;
  const LogitRows& in = args.in;
  for_rows<Team>(in.num_rows, [&](int64_t r) {
    A found = -kInfinity<A>;
    if (!in.mask || in.mask[r])
      found = threshold_of<kLanes>(Chunks<T>(in, r), args, temperature_of<A>(in, r, true));
    if (Team::rank() == 0) args.out[r] = found;
  });
}

}  // namespace
}  // namespace cuda

using namespace cuda;

// A warp at least has a row: what is selected with takes memory.
const char* row_threshold_cuda(const RowThreshold& args, void* stream) {
  const Geometry g = in_small_blocks(geometry(args.in.num_rows, args.in.rows.vocab, args.in.dtype, kWarp));
  return with_type(args.in.dtype, [&]<class T>() {
    return with_lanes<T, kWarp>(g.lanes, [&]<int kLanes>() {
      return launch(threshold_kernel<T, kLanes>, g, args, stream);
    });
  });
}

}  // namespace pgest
