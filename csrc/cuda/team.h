// The threads that share a row, and what they add up together. Every thread of a team gets the same
// bits, whatever the order in which threads run: no atomics.
#pragma once

#include "device.h"

namespace pgest::cuda {

constexpr int kWarp = 32;

struct Add {
  template <class X>
  __device__ __forceinline__ X operator()(X a, X b) const {
    return a + b;
  }
};

// NaN is passed over.
struct Larger {
  template <class X>
  __device__ __forceinline__ X operator()(X a, X b) const {
    return b > a ? b : a;
  }
};

struct Smaller {
  template <class X>
  __device__ __forceinline__ X operator()(X a, X b) const {
    return b < a ? b : a;
  }
};

// Of the threads of a team: the sum of those before, and of all.
template <class X>
struct Prefix {
  X before, all;
};

// kLanes neighbours of a warp; several teams share a block.
template <int kLanes>
struct TeamOf {
  static constexpr int kThreads = kPackedThreads;
  static constexpr int kTeams = kThreads / kLanes;  // of a block

  __device__ static int rank() { return threadIdx.x % kLanes; }
  __device__ static int size() { return kLanes; }
  __device__ static int64_t first_row() {
    return static_cast<int64_t>(blockIdx.x) * kTeams + threadIdx.x / kLanes;
  }
  __device__ static int64_t row_stride() { return static_cast<int64_t>(gridDim.x) * kTeams; }

  // Orders what the team's threads read and write.
  __device__ static void sync() {
    if constexpr (kLanes > 1) __syncwarp(mask());
  }

  template <class Op, class X>
  __device__ static X all(Op op, X x) {
    for (int offset = kLanes / 2; offset > 0; offset /= 2)
      x = op(x, __shfl_xor_sync(mask(), x, offset));
    return x;
  }

  // What the thread of that rank holds.
  template <class X>
  __device__ static X from(int rank, X x) {
    if constexpr (kLanes > 1) x = __shfl_sync(mask(), x, rank, kLanes);
    return x;
  }

  template <class X>
  __device__ static Prefix<X> prefix(X x) {
    if constexpr (kLanes == 1) {
      return {0, x};
    } else {
      for (int offset = 1; offset < kLanes; offset *= 2) {
        const X before = __shfl_up_sync(mask(), x, offset, kLanes);
        if (rank() >= offset) x += before;
      }
      const X before = __shfl_up_sync(mask(), x, 1, kLanes);
      return {rank() == 0 ? 0 : before, from(kLanes - 1, x)};
    }
  }

 private:
  __device__ static unsigned mask() {
    constexpr unsigned ones = kLanes == kWarp ? ~0u : (1u << (kLanes % kWarp)) - 1;
    return ones << (threadIdx.x % kWarp / kLanes * kLanes);
  }
};

template <>
struct TeamOf<kWholeBlock> {
  static constexpr int kThreads = kMaxThreads;

  __device__ static int rank() { return threadIdx.x; }
  __device__ static int size() { return blockDim.x; }
  __device__ static int64_t first_row() { return blockIdx.x; }
  __device__ static int64_t row_stride() { return gridDim.x; }
  __device__ static void sync() { __syncthreads(); }

  // Warps first, then every warp all of them again, in the same order.
  template <class Op, class X>
  __device__ static X all(Op op, X x) {
    __shared__ X of_warps[kMaxThreads / kWarp];
    const int lane = threadIdx.x % kWarp, warps = blockDim.x / kWarp;
    x = in_warp(op, x);
    if (lane == 0) of_warps[threadIdx.x / kWarp] = x;
    __syncthreads();
    x = in_warp(op, of_warps[lane % warps], warps);  // warps is a power of two
    __syncthreads();                                 // before the next call writes
    return x;
  }

  template <class X>
  __device__ static Prefix<X> prefix(X x) {
    __shared__ X of_warps[kMaxThreads / kWarp];
    const int warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
    const Prefix<X> mine = TeamOf<kWarp>::prefix(x);
    if (threadIdx.x % kWarp == 0) of_warps[warp] = mine.all;
    __syncthreads();
    Prefix<X> sum{mine.before, 0};
    for (int w = 0; w < warps; ++w) {
      if (w < warp) sum.before += of_warps[w];
      sum.all += of_warps[w];
    }
    __syncthreads();
    return sum;
  }

 private:
  template <class Op, class X>
  __device__ static X in_warp(Op op, X x, int lanes = kWarp) {
    for (int offset = lanes / 2; offset > 0; offset /= 2)
      x = op(x, __shfl_xor_sync(~0u, x, offset));
    return x;
  }
};

// Blocks that a multiprocessor has room for: 64 registers for each of 1024 threads, or 128 in float64.
template <class T, int kLanes>
constexpr int kResident = (sizeof(T) == 8 ? 512 : 1024) / TeamOf<kLanes>::kThreads;

// Blocks of kernels that read a row several times, or that need a few more registers: small, so that one
// streams while others work on what they have, and that there is room for 768 threads with 80 registers.
template <int kLanes>
constexpr int kSmallBlock = kLanes == kWholeBlock ? 256 : kPackedThreads;
template <class T, int kLanes>
constexpr int kSmallBlocks = (sizeof(T) == 8 ? 512 : kLanes == kWholeBlock ? 768 : 640) / kSmallBlock<kLanes>;
// The same with 128 registers.
template <int kLanes>
constexpr int kLargeBlocks = 512 / kSmallBlock<kLanes>;

inline Geometry in_small_blocks(Geometry g) {
  if (g.threads > kSmallBlock<kWholeBlock>) g.threads = kSmallBlock<kWholeBlock>;
  return g;
}

template <class Team, class X>
__device__ X sum_of(X x) {
  return Team::all(Add{}, x);
}

template <class Team, class X>
__device__ X largest_of(X x) {
  return Team::all(Larger{}, x);
}

template <class Team, class X>
__device__ X smallest_of(X x) {
  return Team::all(Smaller{}, x);
}

// Runs `body` for each row of the thread's team. All threads of a team run it together.
template <class Team, class F>
__device__ void for_rows(int64_t num_rows, const F& body) {
  for (int64_t row = Team::first_row(); row < num_rows; row += Team::row_stride()) body(row);
}

// Calls f with the lanes of a team of rows of T as a constant. Kernels that are too large to have one for the
// shortest rows name the fewest.
template <class T, int kFewest = 1, class F>
const char* with_lanes(int lanes, const F& f) {
  constexpr bool of_warps = sizeof(T) == 8 && one_team(DType::f64);
  if constexpr (!of_warps) {
    if constexpr (kFewest == 1)
      if (lanes == 1) return f.template operator()<1>();
    if constexpr (kFewest <= 8)
      if (lanes == 8) return f.template operator()<8>();
    if (lanes == kWholeBlock) return f.template operator()<kWholeBlock>();
  }
  return f.template operator()<kWarp>();
}

}  // namespace pgest::cuda
