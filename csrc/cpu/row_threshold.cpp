// row_threshold on the CPU: top_k selects with weight 1 and target k, top_p with weight p and
// target top_p. Masses are sums in double of weights in the accumulating type.

#include "../kernels/row_threshold.h"

#include <cmath>
#include <vector>

#include "../restriction.h"
#include "../row.h"
#include "select.h"

namespace pgest {
namespace {

template <class A>
struct Extremes {
  A largest;
  bool broken;  // NaN or +inf
};

// Maxima of kLanes interleaved parts of every block. The k-th largest of them is at most the k-th
// largest value, and not far below it.
template <class A, class S>
PGEST_INLINE Extremes<A> maxima_of(const S& source, std::vector<A>& maxima) {
  maxima.assign((source.size + kBlock - 1) / kBlock * kLanes, -kInfinity<A>);
  A* m = maxima.data();
  A broken = 0;
  source.blocks([&](const A* x, int64_t n) PGEST_INLINE_LAMBDA {
    for (int64_t i = 0; i < n; i += kLanes) {
      const int64_t lanes = std::min(kLanes, n - i);
#pragma omp simd reduction(+ : broken)
      for (int64_t j = 0; j < lanes; ++j) {
        const A v = x[i + j];
        m[j] = v > m[j] ? v : m[j];
        broken += v < kInfinity<A> ? A(0) : A(1);
      }
    }
    m += kLanes;
  });
  return {*std::max_element(maxima.begin(), maxima.end()), broken != 0};
}

// A bound below the k-th largest value; the lowest number where the maxima are too few to know one.
template <class A>
A guess(std::vector<A>& maxima, int64_t k) {
  if (k > static_cast<int64_t>(maxima.size())) return std::numeric_limits<A>::lowest();
  std::nth_element(maxima.begin(), maxima.begin() + (k - 1), maxima.end(), std::greater<A>());
  return std::max(maxima[k - 1], std::numeric_limits<A>::lowest());
}

struct Count {
  template <class A>
  PGEST_INLINE A operator()(A) const {
    return 1;
  }
};

template <class A>
struct Mass {
  A largest, bits, lowest;
  PGEST_INLINE A operator()(A v) const { return exp2_fast(clamp_bits((v - largest) * bits, lowest)); }
};

template <class A, class S>
PGEST_INLINE double total(const S& source, const Mass<A>& mass) {
  double sum = 0;
  source.blocks([&](const A* x, int64_t n) PGEST_INLINE_LAMBDA {
    A s = 0;
#pragma omp simd reduction(+ : s)
    for (int64_t i = 0; i < n; ++i) s += mass(x[i]);
    sum += s;
  });
  return sum;
}

// What a thread needs: as much as one row.
template <class A>
struct Scratch {
  std::vector<A> maxima, kept;
};

template <class A, class S>
PGEST_INLINE int64_t collect_from(const S& source, A lowest, A* kept) {
  return collect(source, [&](A v) PGEST_INLINE_LAMBDA { return v >= lowest; }, kept);
}

// Of the values that `lowest` leaves.
template <class A, class S>
PGEST_INLINE A nucleus(const S& source, A lowest, A largest, double bits, double top_p, A* kept) {
  const Mass<A> mass{largest, static_cast<A>(bits), lowest_bits(static_cast<A>(bits))};
  const Transform<A> none{LogitRows{}, 0};
  if (lowest != -kInfinity<A>) {
    const int64_t count = collect_from(source, lowest, kept);
    return select(kept, count, top_p * total(Source<false, A>{kept, count, none}, mass), mass);
  }
  const double sum = total(source, mass);
  // Impossible tokens are never collected: a bound below all finite numbers is no bound.
  const double bound = std::max<double>(top_p_bound(largest, sum, source.size, bits, top_p),
                                        std::numeric_limits<A>::lowest());
  return select(kept, collect_from(source, static_cast<A>(bound), kept), top_p * sum, mass);
}

template <class A, class S>
PGEST_INLINE A threshold_of(const S& source, const RowThreshold& args, double temperature,
                            Scratch<A>& scratch) {
  const Extremes<A> row = maxima_of(source, scratch.maxima);
  if (row.broken) return std::numeric_limits<A>::quiet_NaN();
  A found = -kInfinity<A>;
  if (row.largest == found) return found;
  A* kept = scratch.kept.data();
  if (args.top_k <= source.size) {
    const int64_t count = collect_from(source, guess(scratch.maxima, args.top_k), kept);
    found = select(kept, count, static_cast<double>(args.top_k), Count{});
  }
  if (args.top_p < 1)
    found = nucleus(source, found, row.largest, kLog2E / temperature, args.top_p, kept);
  return std::max(found, round_up<A>(min_p_edge(row.largest, temperature, args.log_min_p)));
}

template <bool kTransform, class T>
PGEST_CLONES Refusal threshold_rows(const RowThreshold& args, int64_t begin, int64_t end) {
  const LogitRows& in = args.in;
  Scratch<Acc<T>> scratch;
  if (args.top_k <= in.rows.vocab || args.top_p < 1) scratch.kept.resize(in.rows.vocab);
  for (int64_t r = begin; r < end; ++r) {
    args.out[r] = -kInfinity<double>;
    if (in.mask && !in.mask[r]) continue;
    const double temperature = in.temperature ? in.temperature[r] : 1.0;
    if (!fits<Acc<T>>(temperature)) return {Refusal::temperature, r, 0};
    const Transform<Acc<T>> by(in, r);
    const T* row = static_cast<const T*>(in.logits) + in.rows.offset(r);
    args.out[r] = threshold_of(Source<kTransform, T>{row, in.rows.vocab, by}, args, temperature, scratch);
  }
  return {};
}

template <class T>
Refusal thresholds(const RowThreshold& args, int64_t begin, int64_t end) {
  return args.in.transformed() ? threshold_rows<true, T>(args, begin, end)
                               : threshold_rows<false, T>(args, begin, end);
}

}  // namespace

Refusal row_threshold_cpu(const RowThreshold& args, int64_t begin, int64_t end) {
  switch (args.in.dtype) {
    case DType::f64: return thresholds<double>(args, begin, end);
    case DType::f32: return thresholds<float>(args, begin, end);
    case DType::bf16: return thresholds<BFloat16>(args, begin, end);
    case DType::f16: return thresholds<Half>(args, begin, end);
  }
  return {};
}

}  // namespace pgest
