// Softmaxes of a row that a team sees once for their sums and once more for their elements, and means
// under them.
#pragma once

#include "../jacobian.h"
#include "../noise.h"
#include "sums.h"

namespace pgest::cuda {

// Sums over 2^d, d = (x - pivot) * bits.
struct SoftTotal {
  double pivot, total;
  double by_grad;  // of 2^d g
  double by_bits;  // of 2^d d

  __device__ double mean_grad() const { return by_grad / total; }
  // Not where an infinite gradient was met: its element may have no probability in the end.
  __device__ bool has_mean() const { return mean_grad() - mean_grad() == 0; }
  __device__ double mean_log() const { return kLn2 * (by_bits / total) - log(total); }
};

__device__ inline SoftTotal rebase(const SoftTotal& a, double pivot, double bits) {
  if (a.total == 0 || a.pivot == pivot) return {pivot, a.total, a.by_grad, a.by_bits};
  const double shift = (a.pivot - pivot) * bits;
  const double scale = exp2(shift);
  // The old part vanishes, but not its NaN, and 0 * -inf must not make one.
  if (scale == 0) return {pivot, a.total * 0, a.by_grad * 0, a.by_bits * 0};
  return {pivot, a.total * scale, a.by_grad * scale, (a.by_bits + a.total * shift) * scale};
}

// Which of the sums are asked for: with each those before it.
enum class Sums { total, by_grad, by_bits };

// The sums of a thread, in the type of the row's values and relative to a pivot that it raises when a
// value exceeds it by much.
template <class A, Sums kSums>
struct SoftSums {
  A pivot = -kInfinity<A>, highest = -kInfinity<A>;
  A total = 0, by_grad = 0, by_bits = 0;

  template <int n>
  __device__ __forceinline__ void add(const A* x, A bits) {
    const A base = see<n>(x, bits);
#pragma unroll
    for (int j = 0; j < n; ++j) total += exp2_fast((x[j] - base) * bits);
  }

  // With what the row's gradient needs, and with what its temperature's does.
  template <int n>
  __device__ __forceinline__ void add(const A* x, A bits, const A* grad, bool by_temperature) {
    const A base = see<n>(x, bits);
#pragma unroll
    for (int j = 0; j < n; ++j) {
      const A d = (x[j] - base) * bits, e = exp2_fast(d);
      total += e;
      by_grad += e * counted(e, grad[j]);
      if (by_temperature) by_bits += e * at_least(lowest_bits<A>(), d);
    }
  }

  // When values are from now on relative to what is `by` higher.
  __device__ __forceinline__ void lower(A by) {
    pivot -= by;
    highest -= by;
  }

  // The sums of all threads. Each gave its values relative to a `base` of its own.
  template <class Team>
  __device__ SoftTotal merged(double base, double bits) const {
    const bool none = highest == -kInfinity<A>;
    const double top = largest_of<Team>(none ? -kInfinity<double> : base + highest);
    SoftTotal sums = rebase({base + pivot, total, by_grad, by_bits}, top, bits);
    sums.total = sum_of<Team>(sums.total);
    if constexpr (kSums >= Sums::by_grad) sums.by_grad = sum_of<Team>(sums.by_grad);
    if constexpr (kSums >= Sums::by_bits) sums.by_bits = sum_of<Team>(sums.by_bits);
    return sums;
  }

 private:
  // Takes note of values, and gives what powers are relative to: 0 while all is -inf, so that a NaN is seen.
  template <int n>
  __device__ __forceinline__ A see(const A* x, A bits) {
    A top = x[0];
#pragma unroll
    for (int j = 1; j < n; ++j) top = fmax(top, x[j]);
    highest = fmax(highest, top);
    if (top > pivot && (pivot == -kInfinity<A> || (top - pivot) * bits > kSlackBits)) raise(top, bits);
    return pivot == -kInfinity<A> ? 0 : pivot;
  }

  // In the type of the values: what is left of the sums is less than 2^-kSlackBits of what comes.
  __device__ __forceinline__ void raise(A top, A bits) {
    const A shift = (pivot - top) * bits, scale = exp2_fast(shift);
    // The old part may vanish, but not its NaN, and 0 * -inf must not make one.
    by_bits = scale == 0 ? by_bits * 0 : (by_bits + total * shift) * scale;
    by_grad *= scale;
    total *= scale;
    pivot = top;
  }
};

// What gives the elements of a softmax. All are NaN for a row that has no possible token.
template <class A>
struct Softmax {
  A pivot, bits, scale;

  // For values relative to `base`.
  __device__ Softmax(const SoftTotal& sums, double base, double bits)
      : pivot(sums.pivot == -kInfinity<double> ? A(0) : static_cast<A>(sums.pivot - base)),
        bits(static_cast<A>(bits)),
        scale(static_cast<A>(1 / sums.total)) {}

  __device__ __forceinline__ A operator()(A x) const { return exp2_fast((x - pivot) * bits) * scale; }
};

// Means under a softmax whose elements are known, divided by the sum of q, which is 1 but for rounding:
// where one q is nearly 1, g - E[g] would be all rounding.
template <class A>
struct SoftMoments {
  A total = 0, by_grad = 0, by_log = 0;

  __device__ __forceinline__ void add(A q, A grad, bool by_temperature) {
    total += q;
    by_grad += q * counted(q, grad);
    if (by_temperature) by_log += q * log_or_zero(q);
  }

  template <class Team>
  __device__ double mean_grad() const {
    return of_all<Team>(by_grad) / of_all<Team>(total);
  }
  template <class Team>
  __device__ double mean_log() const {
    return of_all<Team>(by_log) / of_all<Team>(total);
  }

 private:
  template <class Team>
  __device__ static double of_all(A sum) {
    return sum_of<Team>(static_cast<double>(sum));
  }
};

}  // namespace pgest::cuda
