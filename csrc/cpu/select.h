// Selection in a row that is not sorted. What is sought is the smallest value w such that the weight
// of all larger values is below a target. The values are binned, those of the bin where the weight
// reaches the target are kept and binned again, until few are left. Weights are summed in double.
#pragma once

#include <algorithm>
#include <array>
#include <functional>

#include "source.h"

namespace pgest {

constexpr int64_t kLanes = 64;  // maxima kept of a block: kBlock / kLanes values share one
constexpr int kBins = 1024;
constexpr int64_t kFew = 48;  // as many are sorted rather than binned

// Equal steps over a range of values, bin 0 at its upper end. Halves, so that no difference of finite
// values overflows.
template <class A>
struct Bins {
  A half_high, scale;

  Bins(A low, A high) : half_high(high / 2), scale(kBins / (high / 2 - low / 2)) {}
  bool finite() const { return scale < std::numeric_limits<A>::infinity(); }
  PGEST_INLINE int32_t of(A v) const {
    const A bin = (half_high - v / 2) * scale;
    return bin < kBins - 1 ? static_cast<int32_t>(bin) : kBins - 1;  // a NaN too
  }
};

// The values that `wanted` says, in order; their number. `kept` may be where the source lies. Mostly
// few are wanted, and that a group holds none is seen faster than each of it is passed over.
template <class A, class S, class Wanted>
PGEST_INLINE int64_t collect(const S& source, const Wanted& wanted, A* kept) {
  int64_t count = 0;
  source.blocks([&](const A* x, int64_t n) PGEST_INLINE_LAMBDA {
    for (int64_t begin = 0; begin < n; begin += kLanes) {
      const int64_t end = std::min(begin + kLanes, n);
      int32_t any = 0;
#pragma omp simd reduction(+ : any)
      for (int64_t i = begin; i < end; ++i) any += wanted(x[i]) ? 1 : 0;
      if (any == 0) continue;
      for (int64_t i = begin; i < end; ++i) {
        const A v = x[i];
        kept[count] = v;
        count += wanted(v);
      }
    }
  });
  return count;
}

using Sums = std::array<double, kBins>;

template <class A, class W>
PGEST_INLINE void histogram(const A* values, int64_t count, const Bins<A>& bins, const W& weight,
                            Sums& sums) {
  alignas(64) int32_t at[kBlock];
  alignas(64) A of[kBlock];
  Sums odd{};  // neighbours in one bin would wait for each other
  sums.fill(0);
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    const int64_t n = std::min(kBlock, count - begin);
    const A* x = values + begin;
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) {
      at[i] = bins.of(x[i]);
      of[i] = weight(x[i]);
    }
    for (int64_t i = 0; i + 1 < n; i += 2) {
      sums[at[i]] += of[i];
      odd[at[i + 1]] += of[i + 1];
    }
    if (n % 2) sums[at[n - 1]] += of[n - 1];
  }
  for (int i = 0; i < kBins; ++i) sums[i] += odd[i];
}

// The bin in which the weight `above` reaches the target; the last that holds anything where
// rounding keeps it from that. `above` grows by the bins before it.
inline int crossing(const Sums& sums, double target, double& above) {
  int last = kBins - 1;
  while (last > 0 && sums[last] == 0) --last;
  for (int bin = 0; bin < last; ++bin) {
    if (above + sums[bin] >= target) return bin;
    above += sums[bin];
  }
  return last;
}

template <class A, class W>
A select_sorted(A* values, int64_t count, double above, double target, const W& weight) {
  std::sort(values, values + count, std::greater<A>());
  A found = values[0];
  for (int64_t i = 0; i < count; ++i) {
    if (values[i] != found && above >= target) break;
    found = values[i];
    above += weight(found);
  }
  return found;
}

// The smallest of `values` such that the weight of all larger ones is below the target (> 0). The
// values are lost.
template <class A, class W>
PGEST_INLINE A select(A* values, int64_t count, double target, const W& weight) {
  const Transform<A> none{LogitRows{}, 0};
  double above = 0;
  Sums sums;
  for (int64_t before = count + 1; count > kFew && count < before;) {
    A low = values[0], high = values[0];
#pragma omp simd reduction(min : low) reduction(max : high)
    for (int64_t i = 0; i < count; ++i) {
      low = values[i] < low ? values[i] : low;
      high = values[i] > high ? values[i] : high;
    }
    if (low == high) return high;
    const Bins<A> bins(low, high);
    if (!bins.finite()) break;
    histogram(values, count, bins, weight, sums);
    const int chosen = crossing(sums, target, above);
    before = count;
    count = collect(Source<false, A>{values, count, none},
                    [&](A v) PGEST_INLINE_LAMBDA { return bins.of(v) == chosen; }, values);
  }
  return select_sorted(values, count, above, target, weight);
}

}  // namespace pgest
