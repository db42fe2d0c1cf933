// The sums of a row beside a row of a reference policy and a row of rewards, as a thread adds them up: as
// sums.h does, relative to pivots of its own.
#pragma once

#include "pair_row.h"
#include "sums.h"

namespace pgest::cuda {

template <class A>
struct PairRunning {
  Running<A> p, q;  // s1 of q stays 0
  A kl = 0, reverse_kl = 0, value = 0;
  A p_alone = -kInfinity<A>, q_alone = -kInfinity<A>;
  int64_t argmax = 0;  // the first chunk with the largest value

  // Before a chunk's sums.
  __device__ __forceinline__ void rise(const A* x, int64_t at, A bits) {
    const A top = largest_in(x);
    if (top > p.highest) argmax = at;
    p.highest = fmax(p.highest, top);
    if (p.raises(top, bits)) raise(top, q.pivot, bits);
  }
  __device__ __forceinline__ void rise_reference(const A* y, A bits) {
    const A top = largest_in(y);
    q.highest = fmax(q.highest, top);
    if (q.raises(top, bits)) raise(p.pivot, top, bits);
  }

  __device__ __forceinline__ void add(const A* x, A bits) {
    const A base = p.base();
#pragma unroll
    for (int i = 0; i < kChunk; ++i) p.add_bits((x[i] - base) * bits);
  }

  template <bool kReverse>
  __device__ __forceinline__ void add(const A* x, const A* y, A bits) {
    const A base = p.base(), q_base = q.base();
#pragma unroll
    for (int i = 0; i < kChunk; ++i) {
      const A exact = (x[i] - base) * bits, d = at_least(lowest_bits<A>(), exact);
      const A exact_q = (y[i] - q_base) * bits, eq = exp2_fast(exact_q);
      const A e = p.add_bits(exact);
      q.s0 += eq;
      if (exact_q == -kInfinity<A>) {
        p_alone = fmax(p_alone, x[i]);
      } else {
        kl += e * (d - exact_q);
      }
      if constexpr (kReverse) {
        if (exact == -kInfinity<A>) {
          q_alone = fmax(q_alone, y[i]);
        } else {
          reverse_kl += eq * (at_least(lowest_bits<A>(), exact_q) - exact);
        }
      }
    }
  }

  __device__ __forceinline__ void add_rewards(const A* x, const A* r, A bits) {
    const A base = p.base();
#pragma unroll
    for (int i = 0; i < kChunk; ++i) {
      const A e = exp2_fast((x[i] - base) * bits);
      value += x[i] == -kInfinity<A> ? 0 : e * r[i];
    }
  }

  // The sums relative to higher pivots. Where nothing was added yet, one pivot is as good as another.
  __device__ PairSums relative_to(double pivot, double q_pivot, double bits) const {
    PairSums sums;
    sums.p = {p.pivot == -kInfinity<A> ? pivot : p.pivot, p.s0, p.s1};
    sums.q = {q.pivot == -kInfinity<A> ? q_pivot : q.pivot, q.s0, 0};
    sums.kl = kl;
    sums.reverse_kl = reverse_kl;
    sums.value = value;
    return rebase(sums, pivot, q_pivot, bits);
  }

 private:
  __device__ __forceinline__ void raise(A pivot, A q_pivot, A bits) {
    const A shift = p.shift_to(pivot, bits), q_shift = q.shift_to(q_pivot, bits);
    kl = moved(kl, p.s0, shift, shift - q_shift);
    reverse_kl = moved(reverse_kl, q.s0, q_shift, q_shift - shift);
    value *= exp2(shift);  // as in pair.h
    p.raise(pivot, bits);
    q.raise(q_pivot, bits);
  }
};

// The sums of all threads, relative to the largest values.
template <class Team, bool kReference, class A>
__device__ PairSums merged(const PairRunning<A>& mine, const TokenStatsForward& args, double bits) {
  const double pivot = largest_of<Team>(mine.p.highest);
  const double q_pivot = kReference ? largest_of<Team>(mine.q.highest) : -kInfinity<A>;
  PairSums sums = mine.relative_to(pivot, q_pivot, bits);
  sums.p.s0 = sum_of<Team>(sums.p.s0);
  sums.p.s1 = sum_of<Team>(sums.p.s1);
  if (args.out[kValue]) sums.value = sum_of<Team>(sums.value);
  if constexpr (kReference) {
    sums.q.s0 = sum_of<Team>(sums.q.s0);
    sums.kl = sum_of<Team>(sums.kl);
    sums.p_alone = largest_of<Team>(mine.p_alone);
    if (args.out[kReverseKl]) {
      sums.reverse_kl = sum_of<Team>(sums.reverse_kl);
      sums.q_alone = largest_of<Team>(mine.q_alone);
    }
  }
  return sums;
}

}  // namespace pgest::cuda
