// Statistics of vectors of bits, on CUDA: joint ones by a team for each row, others by blocks of elements.

#include "bit_chunk.h"
#include "chosen.h"
#include "sums.h"

namespace pgest {
namespace cuda {
namespace {

// What a bit costs whatever it is, and the entropy: both 0 for a logit of -inf, which stands beyond an end.
template <class A>
struct CertainChunk {
  A cost[kChunk], entropy[kChunk];

  __device__ __forceinline__ explicit CertainChunk(const A* z) {
#pragma unroll
    for (int j = 0; j < kChunk; ++j) {
      const A e = decay(z[j]);
      cost[j] = certainty_cost(e);
      entropy[j] = cost[j] + of_magnitude(rare_of(e), static_cast<A>(fabs(z[j])));
    }
  }
};

template <class T, class B, int kLanes>
__global__ void __launch_bounds__(TeamOf<kLanes>::kThreads)
    joint_bits_kernel(const BitStatsForward args) {
  using A = Acc<T>;
  using Team = TeamOf<kLanes>;
  const BitRows& in = args.in;
  const int64_t samples = args.logp_out ? in.num_samples : 0;
  for_rows<Team>(in.num_rows * tiles_of(samples), [&](int64_t item) {
    const Tile tile(item, in.num_rows, samples);
    const T* logits = static_cast<const T*>(in.logits) + tile.row * in.width;
    const B* bits = static_cast<const B*>(in.bits) + (tile.first * in.num_rows + tile.row) * in.width;
    A cost = 0, entropy = 0, mismatches[Tile::kSamples] = {};
    for_even_chunks<Team>(in.width, [&](int64_t at, int n) {
      A z[kChunk];
      load(logits + at, n, z, -kInfinity<A>);
      const CertainChunk<A> certain(z);
      const Likely likely(z);
#pragma unroll
      for (int j = 0; j < kChunk; ++j) {
        cost += certain.cost[j];
        entropy += certain.entropy[j];
      }
#pragma unroll
      for (int k = 0; k < Tile::kSamples; ++k) {
        if (k >= tile.count) break;
        BitChunk<B> b;
        b.load(bits + k * in.num_rows * in.width + at, n);
        if (!b.fits()) refuse(Refusal::bit, tile.row, tile.first + k);
        b.compare(likely);
#pragma unroll
        for (int j = 0; j < kChunk; ++j) mismatches[k] += b.cost(j, z[j]);
      }
    });
    const double all = sum_of<Team>(static_cast<double>(cost));
#pragma unroll
    for (int k = 0; k < Tile::kSamples; ++k) {
      if (k >= tile.count) break;
      const double logp = -(all + sum_of<Team>(static_cast<double>(mismatches[k])));
      if (Team::rank() == 0)
        static_cast<A*>(args.logp_out)[(tile.first + k) * in.num_rows + tile.row] = static_cast<A>(logp);
    }
    if (!args.entropy_out || tile.first > 0) return;
    const double row_entropy = sum_of<Team>(static_cast<double>(entropy));
    if (Team::rank() == 0) static_cast<A*>(args.entropy_out)[tile.row] = static_cast<A>(row_entropy);
  });
}

template <class T, class B>
__global__ void __launch_bounds__(kPackedThreads) lone_bits_kernel(const BitStatsForward args) {
  using A = Acc<T>;
  const BitRows& in = args.in;
  const int64_t numel = in.num_rows * in.width, blocks = bit_blocks(numel);
  const int64_t samples = args.logp_out ? in.num_samples : 0;
  for_rows<TeamOf<kWarp>>(blocks * tiles_of(samples), [&](int64_t item) {
    const Tile tile(item, blocks, samples);
    const LoneChunk chunk(tile.row, numel);
    if (chunk.n <= 0) return;
    A z[kChunk];
    load(static_cast<const T*>(in.logits) + chunk.at, chunk.n, z, -kInfinity<A>);
    const CertainChunk<A> certain(z);
    const Likely likely(z);
    if (args.entropy_out && tile.first == 0)
      store(static_cast<A*>(args.entropy_out) + chunk.at, chunk.n, certain.entropy);
    for (int k = 0; k < tile.count; ++k) {
      const int64_t place = (tile.first + k) * numel + chunk.at;
      BitChunk<B> b;
      b.load(static_cast<const B*>(in.bits) + place, chunk.n);
      if (!b.fits()) refuse(Refusal::bit, chunk.at / in.width, tile.first + k);
      b.compare(likely);
      A logp[kChunk];
#pragma unroll
      for (int j = 0; j < kChunk; ++j) logp[j] = -certain.cost[j] - b.cost(j, z[j]);
      store(static_cast<A*>(args.logp_out) + place, chunk.n, logp);
    }
  });
}

// The upstream gradients of chunks: one for all of a row, or each element's own.
template <class A>
struct JointUpstream {
  const A *by_logp, *by_entropy;
  int64_t num_rows, row;

  __device__ __forceinline__ void logp(int64_t s, A* w) const { fill(by_logp[s * num_rows + row], w); }
  __device__ __forceinline__ void entropy(A* w) const { fill(by_entropy[row], w); }
  __device__ __forceinline__ static void fill(A one, A* w) {
#pragma unroll
    for (int j = 0; j < kChunk; ++j) w[j] = one;
  }

  template <class Team>
  __device__ bool silent(int64_t num_samples) const {
    int loud = by_entropy && by_entropy[row] != 0;
    for (int64_t s = Team::rank(); by_logp && s < num_samples; s += Team::size())
      loud |= by_logp[s * num_rows + row] != 0;
    return largest_of<Team>(loud) == 0;
  }
};

template <class A>
struct LoneUpstream {
  const A *by_logp, *by_entropy;
  int64_t numel;
  LoneChunk chunk;

  __device__ __forceinline__ void logp(int64_t s, A* w) const {
    load(by_logp + s * numel + chunk.at, chunk.n, w, A(0));
  }
  __device__ __forceinline__ void entropy(A* w) const { load(by_entropy + chunk.at, chunk.n, w, A(0)); }
};

// The gradient of n elements at `at` of all. What has no gradient is not looked at: no 0 * NaN.
template <class T, class B, class Upstream>
__device__ __forceinline__ void bit_gradient(const BitStatsBackward& args, int64_t at, int n,
                                             const Upstream& upstream) {
  using A = Acc<T>;
  const BitRows& in = args.in;
  const auto* logits = static_cast<const T*>(in.logits) + at;
  const auto* bits = static_cast<const B*>(in.bits) + at;
  A z[kChunk], rare[kChunk], w[kChunk], sums[kChunk] = {};
  load(logits, n, z, -kInfinity<A>);
  const Likely likely(z);
#pragma unroll
  for (int j = 0; j < kChunk; ++j) rare[j] = rare_of(decay(z[j]));
#pragma unroll(sizeof(B) == 1 ? 2 : 1)
  for (int64_t s = 0; s < (upstream.by_logp ? in.num_samples : 0); ++s) {
    BitChunk<B> b;
    b.load(bits + s * in.num_rows * in.width, n);
    b.compare(likely);
    upstream.logp(s, w);
#pragma unroll
    for (int j = 0; j < kChunk; ++j)
      if (w[j] != 0) b.add(j, rare[j], w[j], sums[j]);
  }
#pragma unroll
  for (int j = 0; j < kChunk; ++j) sums[j] = signed_by(likely.sign<A>(j), sums[j]);
  if (upstream.by_entropy) {
    load(logits, n, z, -kInfinity<A>);  // again: a register less for each above
    upstream.entropy(w);
#pragma unroll
    for (int j = 0; j < kChunk; ++j)
      if (w[j] != 0) sums[j] += w[j] * entropy_slope(z[j], rare[j]);
  }
  store(static_cast<T*>(args.grad_logits) + at, n, sums);
}

template <class T, class B, int kLanes>
__global__ void __launch_bounds__(kSmallBlock<kLanes>, kSmallBlocks<T, kLanes>)
    joint_bits_backward_kernel(const BitStatsBackward args) {
  using A = Acc<T>;
  using Team = TeamOf<kLanes>;
  const BitRows& in = args.in;
  for_rows<Team>(in.num_rows, [&](int64_t r) {
    const JointUpstream<A> upstream{static_cast<const A*>(args.grad_logp),
                                    static_cast<const A*>(args.grad_entropy), in.num_rows, r};
    const int64_t begin = r * in.width;
    if (upstream.template silent<Team>(in.num_samples))
      return fill_zero<Team>(static_cast<T*>(args.grad_logits) + begin, in.width);
    for_even_chunks<Team>(in.width, [&](int64_t at, int n) {
      bit_gradient<T, B>(args, begin + at, n, upstream);
    });
  });
}

template <class T, class B>
__global__ void __launch_bounds__(kPackedThreads) lone_bits_backward_kernel(const BitStatsBackward args) {
  using A = Acc<T>;
  const int64_t numel = args.in.num_rows * args.in.width;
  for_rows<TeamOf<kWarp>>(bit_blocks(numel), [&](int64_t block) {
    const LoneChunk chunk(block, numel);
    const LoneUpstream<A> upstream{static_cast<const A*>(args.grad_logp),
                                   static_cast<const A*>(args.grad_entropy), numel, chunk};
    if (chunk.n > 0) bit_gradient<T, B>(args, chunk.at, chunk.n, upstream);
  });
}

// Calls f with the types of logits and of bits.
template <class F>
const char* with_bit_types(const BitRows& in, const F& f) {
  return with_type(in.dtype, [&]<class T>() {
    return in.bytes ? f.template operator()<T, uint8_t>() : f.template operator()<T, T>();
  });
}

}  // namespace
}  // namespace cuda

const char* bit_stats_cuda(const BitStatsForward& args, void* stream) {
  const BitRows& in = args.in;
  const int64_t tiles = cuda::tiles_of(args.logp_out ? in.num_samples : 0);
  const Geometry joint = geometry(in.num_rows * tiles, in.width, in.dtype);
  const Geometry lone = geometry(cuda::bit_blocks(in.num_rows * in.width) * tiles, kBitBlock, in.dtype);
  return cuda::with_bit_types(in, [&]<class T, class B>() {
    if (!in.joint) return cuda::launch(cuda::lone_bits_kernel<T, B>, lone, args, stream);
    return cuda::with_lanes<T>(joint.lanes, [&]<int kLanes>() {
      return cuda::launch(cuda::joint_bits_kernel<T, B, kLanes>, joint, args, stream);
    });
  });
}

const char* bit_stats_backward_cuda(const BitStatsBackward& args, void* stream) {
  const BitRows& in = args.in;
  const Geometry joint = cuda::in_small_blocks(geometry(in.num_rows, in.width, in.dtype));
  const Geometry lone = geometry(cuda::bit_blocks(in.num_rows * in.width), kBitBlock, in.dtype);
  return cuda::with_bit_types(in, [&]<class T, class B>() {
    if (!in.joint) return cuda::launch(cuda::lone_bits_backward_kernel<T, B>, lone, args, stream);
    return cuda::with_lanes<T>(joint.lanes, [&]<int kLanes>() {
      return cuda::launch(cuda::joint_bits_backward_kernel<T, B, kLanes>, joint, args, stream);
    });
  });
}

}  // namespace pgest
