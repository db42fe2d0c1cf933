// How threads share the elements that have counter-based noise. A counter's four words belong to
// elements that are 16 apart (see philox.h), so that a thread takes those of two neighbouring counters:
// pairs of neighbours, 16 apart. Chunks start where the row does, whatever its address.
#pragma once

#include "../philox.h"
#include "storage.h"
#include "team.h"

namespace pgest::cuda {

constexpr int kNeighbours = 2;

template <int kLanes>
struct Spread {
  // A row that one thread has alone is no longer than the elements of the counters' first words.
  static constexpr int kPairs = kLanes == 1 ? 1 : 4;
  static constexpr int kSize = kPairs * kNeighbours;
  static constexpr int64_t kSpan = (kPairs - 1) * kNoiseCounters + kNeighbours;
  static constexpr uint64_t kOfGroup = kNoiseCounters / kNeighbours;  // chunks

  // Where a chunk starts, and its other elements from there.
  __device__ __forceinline__ static int64_t first(uint64_t chunk) {
    return static_cast<int64_t>(chunk / kOfGroup * (kPairs * kNoiseCounters) + chunk % kOfGroup * kNeighbours);
  }
  __device__ __forceinline__ static constexpr int place(int j) {
    return j / kNeighbours * static_cast<int>(kNoiseCounters) + j % kNeighbours;
  }
};

static_assert(lanes_for(kNoiseCounters + 1) > 1);

// The counter of the first element of a chunk.
__device__ __forceinline__ int64_t counter_of(uint64_t first) {
  return static_cast<int64_t>(first / kNoiseGroup * kNoiseCounters + first % kNoiseCounters);
}

// Calls f(where it starts) for each of the thread's chunks.
template <int kLanes, class F>
__device__ __forceinline__ void for_spread(int64_t size, const F& f) {
  using S = Spread<kLanes>;
  uint64_t chunk = TeamOf<kLanes>::rank();
#pragma unroll 1
  for (; S::first(chunk) < size; chunk += TeamOf<kLanes>::size()) f(S::first(chunk));
}

template <class T>
struct alignas(kNeighbours * sizeof(T)) Neighbours {
  T of[kNeighbours];
};

// The places of a chunk that are in a row.
template <int kLanes>
struct Inside {
  using S = Spread<kLanes>;
  int places;

  __device__ __forceinline__ Inside(int64_t first, int64_t size)
      : places(size - first < S::kSpan ? static_cast<int>(size - first) : static_cast<int>(S::kSpan)) {}

  __device__ __forceinline__ bool has(int j) const { return S::place(j) < places; }
  // Whether all are, and pairs of them may be read and written as such.
  template <class T>
  __device__ __forceinline__ bool in_pairs(const T* row) const {
    return places == S::kSpan && reinterpret_cast<uintptr_t>(row) % sizeof(Neighbours<T>) == 0;
  }
};

// The chunk at `first` of a row of `size` elements, `otherwise` beyond its end.
template <int kLanes, class T>
__device__ __forceinline__ void load_spread(const T* row, int64_t first, int64_t size, Acc<T>* x,
                                            Acc<T> otherwise) {
  using S = Spread<kLanes>;
  const Inside<kLanes> inside(first, size);
  const T* p = row + first;
  if (inside.in_pairs(row)) {
    Neighbours<T> pairs[S::kPairs];
#pragma unroll
    for (int k = 0; k < S::kPairs; ++k)
      pairs[k] = *reinterpret_cast<const Neighbours<T>*>(p + k * kNoiseCounters);
#pragma unroll
    for (int j = 0; j < S::kSize; ++j) x[j] = value(pairs[j / kNeighbours].of[j % kNeighbours]);
    return;
  }
#pragma unroll
  for (int j = 0; j < S::kSize; ++j) x[j] = inside.has(j) ? value(p[S::place(j)]) : otherwise;
}

template <int kLanes, class T>
__device__ __forceinline__ void store_spread(T* row, int64_t first, int64_t size, const T* x) {
  using S = Spread<kLanes>;
  const Inside<kLanes> inside(first, size);
  T* p = row + first;
  if (inside.in_pairs(row)) {
#pragma unroll
    for (int k = 0; k < S::kPairs; ++k)
      *reinterpret_cast<Neighbours<T>*>(p + k * kNoiseCounters) = {x[2 * k], x[2 * k + 1]};
    return;
  }
#pragma unroll
  for (int j = 0; j < S::kSize; ++j)
    if (inside.has(j)) p[S::place(j)] = x[j];
}

}  // namespace pgest::cuda
