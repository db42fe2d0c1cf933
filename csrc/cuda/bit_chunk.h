// Chunks of bits, and which samples of which logits a team takes, on CUDA.
#pragma once

#include "../bits.h"
#include "../kernels/bits.h"
#include "../row.h"
#include "storage.h"
#include "team.h"

namespace pgest::cuda {

// exp(-|z|); NaN passes.
template <class A>
__device__ __forceinline__ A decay(A z) {
  return exp2_fast(static_cast<A>(fabs(z)) * static_cast<A>(-kLog2E));
}

// The likely values of a chunk's bits: bytes of 1 where z > 0.
struct Likely {
  uint64_t bytes = 0;

  template <class A>
  __device__ __forceinline__ explicit Likely(const A* z) {
#pragma unroll
    for (int j = 0; j < kChunk; ++j) bytes |= static_cast<uint64_t>(z[j] > 0) << (8 * j);
  }
  // What has the sign that counts, in place of z.
  template <class A>
  __device__ __forceinline__ A sign(int j) const {
    return bytes >> (8 * j) & 1 ? A(1) : A(0);
  }
};

// Bits as they are stored, then their mismatches with the likely ones: numbers of the logits' type, from 0 to
// 1. Beyond the end they are 0.
template <class B>
struct BitChunk {
  using A = Acc<B>;
  A bits[kChunk];

  __device__ __forceinline__ void load(const B* p, int n) { cuda::load(p, n, bits, A(0)); }

  __device__ __forceinline__ bool fits() const {
    bool fits = true;
#pragma unroll
    for (int j = 0; j < kChunk; ++j) fits = fits && bits[j] * bits[j] <= bits[j];
    return fits;
  }

  __device__ __forceinline__ void compare(const Likely& likely) {
#pragma unroll
    for (int j = 0; j < kChunk; ++j) bits[j] = mismatch(likely.sign<A>(j), bits[j]);
  }

  // What the mismatch costs, and its part w (r - m) in the gradient.
  __device__ __forceinline__ A cost(int j, A z) const { return of_magnitude(bits[j], static_cast<A>(fabs(z))); }
  __device__ __forceinline__ void add(int j, A rare, A w, A& sum) const { sum += w * (rare - bits[j]); }
};

// Bytes stay packed: what is done to a bit is a test.
template <>
struct BitChunk<uint8_t> {
  uint64_t bits;

  __device__ __forceinline__ void load(const uint8_t* p, int n) {
    if (n == kChunk && reinterpret_cast<uintptr_t>(p) % sizeof(bits) == 0) {
      memcpy(&bits, __builtin_assume_aligned(p, sizeof(bits)), sizeof(bits));
      return;
    }
    bits = 0;
#pragma unroll
    for (int j = 0; j < kChunk; ++j)
      if (j < n) bits |= static_cast<uint64_t>(p[j]) << (8 * j);
  }

  __device__ __forceinline__ bool fits() const { return (bits & 0xfefefefefefefefeu) == 0; }

  __device__ __forceinline__ void compare(const Likely& likely) { bits ^= likely.bytes; }

  template <class A>
  __device__ __forceinline__ A cost(int j, A z) const {
    return bits >> (8 * j) & 1 ? static_cast<A>(fabs(z)) : A(0);
  }
  template <class A>
  __device__ __forceinline__ void add(int j, A rare, A w, A& sum) const {
    sum += w * rare;
    if (bits >> (8 * j) & 1) sum -= w;
  }
};

static_assert(kChunk == sizeof(uint64_t));

// What a team does at a time: a few samples of one row, whose logits it then reads once for all of them.
// Neighbouring teams take neighbouring rows.
struct Tile {
  static constexpr int kSamples = 8;

  int64_t row, first;  // sample
  int count;

  __device__ Tile(int64_t item, int64_t num_rows, int64_t num_samples)
      : row(item < num_rows ? item : item % num_rows),
        first(item < num_rows ? 0 : item / num_rows * kSamples),
        count(static_cast<int>(num_samples - first < kSamples ? num_samples - first : kSamples)) {}
};

// One for no samples: there may be more to do.
constexpr int64_t tiles_of(int64_t num_samples) {
  return num_samples <= Tile::kSamples ? 1 : (num_samples + Tile::kSamples - 1) / Tile::kSamples;
}

// Where rows do not matter: blocks of elements, a chunk for each lane of a warp.
constexpr int64_t bit_blocks(int64_t numel) { return numel / kBitBlock + (numel % kBitBlock != 0); }

struct LoneChunk {
  int64_t at;
  int n;  // not positive beyond the end

  __device__ LoneChunk(int64_t block, int64_t numel)
      : at(block * kBitBlock + TeamOf<kWarp>::rank() * kChunk),
        n(static_cast<int>(numel - at < kChunk ? numel - at : kChunk)) {}
};

static_assert(lanes_for(kBitBlock) == kWarp && kBitBlock == kWarp * kChunk);

}  // namespace pgest::cuda
