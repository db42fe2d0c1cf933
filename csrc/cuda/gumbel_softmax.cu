// gumbel_softmax on CUDA: noise is made where it is needed. A soft row is seen twice, for its sums and for
// its elements; a hard one once, and then written.

#include "gumbel.h"
#include "one_hot.h"

namespace pgest {
namespace cuda {
namespace {

template <class T, int kLanes>
__global__ void __launch_bounds__(TeamOf<kLanes>::kThreads)
    soft_kernel(const GumbelSoftmaxForward args) {
  using A = Acc<T>;
  constexpr int n = NoisyRow<T, kLanes>::kSize;
  HeldNoise<kLanes, A> held;
  for_rows<TeamOf<kLanes>>(args.in.num_rows, [&](int64_t r) {
    const double bits = kLog2E / temperature_of<A>(args.in, r, true);
    const NoisyRow<T, kLanes> row(args.in, r);
    T* out = static_cast<T*>(args.out) + r * args.in.rows.vocab;
    NoisySums<A, Sums::total> sums;
    const auto scale = static_cast<A>(bits);
    row.first(held, [&](int64_t, const A* z, const A* g) { sums.template add<n>(z, g, scale); });
    const SoftTotal total = sums.template merged<TeamOf<kLanes>>(bits);
    const NoisySoftmax<A> q = sums.template softmax<TeamOf<kLanes>>(total, bits);
    row.again(held, [&](int64_t first, const A* z, const A* g) {
      T y[n];
#pragma unroll
      for (int j = 0; j < n; ++j) round_to(y[j], q(z[j], g[j]));
      store_spread<kLanes>(out, first, args.in.rows.vocab, y);
    });
  });
}

// The largest z + g that a thread has seen, the first of equal ones.
template <class A>
struct Largest {
  Base<A> base;
  A value = -kInfinity<A>;
  int64_t at = 0;
  int nan = 0;

  template <int kLanes>
  __device__ __forceinline__ void see(int64_t first, const A* z, const A* g) {
    using S = Spread<kLanes>;
    value -= base.template raise<S::kSize>(z);
    A x[S::kSize], top = value;
#pragma unroll
    for (int j = 0; j < S::kSize; ++j) {
      x[j] = (z[j] - base.get()) + g[j];
      nan |= x[j] != x[j];
      top = fmax(top, x[j]);
    }
    if (!(top > value)) return;
    value = top;
#pragma unroll
    for (int j = S::kSize - 1; j >= 0; --j)
      if (x[j] == top) at = first + S::place(j);
  }

  // The row's, or -1 for a row that has none.
  template <class Team>
  __device__ int64_t merged() const {
    const double mine = value == -kInfinity<A> ? -kInfinity<double> : static_cast<double>(base.get()) + value;
    const double top = largest_of<Team>(mine);
    constexpr int64_t none = std::numeric_limits<int64_t>::min();
    const int64_t first = -largest_of<Team>(mine == top ? -at : none);
    return largest_of<Team>(nan) || top == -kInfinity<double> ? -1 : first;
  }
};

template <class T, int kLanes>
__global__ void __launch_bounds__(TeamOf<kLanes>::kThreads)
    hard_kernel(const GumbelSoftmaxForward args) {
  using A = Acc<T>;
  const int64_t vocab = args.in.rows.vocab;
  for_rows<TeamOf<kLanes>>(args.in.num_rows, [&](int64_t r) {
    temperature_of<A>(args.in, r, true);
    Largest<A> largest;
    NoisyRow<T, kLanes>(args.in, r).once([&](int64_t first, const A* z, const A* g) {
      largest.template see<kLanes>(first, z, g);
    });
    const int64_t token = largest.template merged<TeamOf<kLanes>>();
    const A rest = token < 0 ? std::numeric_limits<A>::quiet_NaN() : A(0);
    write_one<TeamOf<kLanes>>(static_cast<T*>(args.out) + r * vocab, vocab, token, rest);
  });
}

}  // namespace
}  // namespace cuda

const char* gumbel_softmax_cuda(const GumbelSoftmaxForward& args, void* stream) {
  const Geometry g = geometry(args.in.num_rows, args.in.rows.vocab, args.in.dtype);
  return cuda::with_type(args.in.dtype, [&]<class T>() {
    return cuda::with_lanes<T>(g.lanes, [&]<int kLanes>() {
      return args.hard ? cuda::launch(cuda::hard_kernel<T, kLanes>, g, args, stream)
                       : cuda::launch(cuda::soft_kernel<T, kLanes>, g, args, stream);
    });
  });
}

}  // namespace pgest
