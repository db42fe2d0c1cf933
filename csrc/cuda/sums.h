// The sums of a row by a team: each thread adds up its chunks relative to a pivot of its own, which it
// raises when a logit exceeds it by much.
#pragma once

#include "../row.h"
#include "storage.h"
#include "team.h"

namespace pgest::cuda {

// Bits by which a logit may exceed the pivot before the pivot is raised: 2^d stays as exact as d, and
// few chunks after the first raise it.
constexpr int kSlackBits = 8;

// Where powers of two end: what is below is 0.
template <class A>
__device__ __forceinline__ constexpr A lowest_bits() {
  return sizeof(A) == 4 ? A(-127) : A(-1023);
}

// The larger of both; `lowest` for NaN, in one instruction. Its power of two must tell of the NaN.
__device__ __forceinline__ float at_least(float lowest, float x) { return fmaxf(lowest, x); }
__device__ __forceinline__ double at_least(double lowest, double x) { return fmax(lowest, x); }

template <class A>
__device__ double temperature_of(const LogitRows& in, int64_t row, bool live) {
  const double temperature = in.temperature ? in.temperature[row] : 1.0;
  if (live && !fits<A>(temperature)) refuse(Refusal::temperature, row, 0);
  return temperature;
}

// NaN is passed over.
template <class A>
__device__ __forceinline__ A largest_in(const A* x) {
  A top = x[0];
#pragma unroll
  for (int i = 1; i < kChunk; ++i) top = fmax(top, x[i]);
  return top;
}

// A thread's sums, in the type of the row's values.
template <class A>
struct Running {
  A pivot = -kInfinity<A>, s0 = 0, s1 = 0;
  A highest = -kInfinity<A>;

  // The pivot that powers of two are relative to: 0 while all is -inf, so that a NaN is seen.
  __device__ __forceinline__ A base() const { return pivot == -kInfinity<A> ? 0 : pivot; }

  // Whether a chunk's largest value is so far above the pivot that the pivot must be raised to it. The
  // first one that is not -inf is.
  __device__ __forceinline__ bool raises(A top, A bits) const {
    return (top - pivot) * bits > kSlackBits;
  }

  __device__ __forceinline__ void add(const A* x, A bits) {
    const A top = largest_in(x);
    highest = fmax(highest, top);
    if (raises(top, bits)) raise(top, bits);
    const A base = this->base();
#pragma unroll
    for (int i = 0; i < kChunk; ++i) add_bits((x[i] - base) * bits);
  }

  // Returns 2^d.
  __device__ __forceinline__ A add_bits(A d) {
    const A e = exp2_fast(d);
    s0 += e;
    s1 += e * at_least(lowest_bits<A>(), d);
    return e;
  }

  // By how much powers of two fall. Where nothing was added yet, one pivot is as good as another.
  __device__ __forceinline__ A shift_to(A top, A bits) const {
    return pivot == top || pivot == -kInfinity<A> ? 0 : (pivot - top) * bits;
  }

  __device__ __forceinline__ void raise(A top, A bits) {
    const A shift = shift_to(top, bits);
    s1 = moved(s1, s0, shift, shift);
    s0 = moved(s0, s0, shift, A(0));
    pivot = top;
  }
};

// The sums of all threads, relative to the largest value.
template <class Team, class A>
__device__ RowSums merged(const Running<A>& mine, double bits) {
  const double pivot = largest_of<Team>(mine.highest);
  RowSums sums = rebase({mine.pivot, mine.s0, mine.s1}, pivot, bits);
  sums.s0 = sum_of<Team>(sums.s0);
  sums.s1 = sum_of<Team>(sums.s1);
  return sums;
}

template <class Team, class T>
__device__ RowSums row_sums(const T* row, int64_t vocab, double bits) {
  using A = Acc<T>;
  Running<A> running;
  const A scale = static_cast<A>(bits);
  for_chunks<Team>(row, vocab, [&](int64_t at, int n, const auto& chunk) {
    A x[kChunk];
    load_chunk(row + at, n, x, -kInfinity<A>, chunk);
    running.add(x, scale);
  });
  return merged<Team>(running, scale);
}

}  // namespace pgest::cuda
