// Statistics of vectors of bits on the CPU: a thread takes rows, and within a row a block of logits,
// of which it then reads all samples; nothing of their size is made in floats.

#include <vector>

#include "bit_block.h"

namespace pgest {
namespace {

// Of one block: what each bit costs whatever it is, and the entropy.
template <class A>
PGEST_INLINE void certain(const Block<A>& block, int64_t n, A* cost, A* entropy) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    cost[i] = certainty_cost(decay(block.z[i]));
    entropy[i] = cost[i] + of_magnitude(block.rare[i], block.magnitude[i]);
  }
}

template <class A>
PGEST_INLINE A total(const A* x, int64_t n) {
  A sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += x[i];
  return sum;
}

// The cost of a sample's mismatches in a block, into `each` or as a sum. `bad` tells of a value outside
// [0, 1].
template <bool kJoint, class A, class B>
PGEST_INLINE A mismatches(const Block<A>& block, const B* bits, int64_t n, const A* certain_cost,
                          A* each, int32_t& bad) {
  A sum = 0;
  int32_t outside = 0;
#pragma omp simd reduction(+ : sum) reduction(| : outside)
  for (int64_t i = 0; i < n; ++i) {
    const A b = bit_value(bits[i]);
    outside |= !(b * b <= b);
    const A cost = of_magnitude(mismatch(block.z[i], b), block.magnitude[i]);
    if constexpr (kJoint) {
      sum += cost;
    } else {
      each[i] = -certain_cost[i] - cost;
    }
  }
  bad |= outside;
  return sum;
}

template <bool kJoint, class T, class B>
PGEST_CLONES Refusal forward_bits(const BitStatsForward& args, int64_t begin, int64_t end) {
  using A = Acc<T>;
  const BitRows& in = args.in;
  auto* logp = static_cast<A*>(args.logp_out);
  auto* entropy_out = static_cast<A*>(args.entropy_out);
  Block<A> block;
  A cost[kBitBlock], entropy[kBitBlock];
  std::vector<double> costs(kJoint ? in.num_samples : 0);
  for (int64_t r = begin; r < end; ++r) {
    double certain_cost = 0, row_entropy = 0;
    std::fill(costs.begin(), costs.end(), 0.0);
    for (int64_t at = 0; at < in.width; at += kBitBlock) {
      const int64_t n = std::min(kBitBlock, in.width - at);
      const int64_t place = r * in.width + at;
      block.load(static_cast<const T*>(in.logits) + place, n);
      certain(block, n, cost, entropy);
      if (kJoint) {
        certain_cost += total(cost, n);
        row_entropy += total(entropy, n);
      } else if (entropy_out) {
        std::copy_n(entropy, n, entropy_out + place);
      }
      for (int64_t s = 0; s < (logp ? in.num_samples : 0); ++s) {
        const int64_t from = s * in.num_rows * in.width + place;
        int32_t bad = 0;
        const A sum = mismatches<kJoint>(block, static_cast<const B*>(in.bits) + from, n, cost,
                                         kJoint ? nullptr : logp + from, bad);
        if (bad) return {Refusal::bit, r, s};
        if (kJoint) costs[s] += sum;
      }
    }
    if (!kJoint) continue;
    for (int64_t s = 0; s < (logp ? in.num_samples : 0); ++s)
      logp[s * in.num_rows + r] = static_cast<A>(-(certain_cost + costs[s]));
    if (entropy_out) entropy_out[r] = static_cast<A>(row_entropy);
  }
  return {};
}

// Adds one sample's w (r - m) to a block; where w is 0, a NaN logit is not seen.
template <bool kJoint, class A, class B>
PGEST_INLINE void add_sample(const Block<A>& block, const B* bits, const A* weight, int64_t n, A* sums) {
  const A w = *weight;
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const A difference = block.rare[i] - mismatch(block.z[i], static_cast<A>(bit_value(bits[i])));
    const A term = (kJoint ? w : weight[i]) * difference;
    sums[i] += !kJoint && weight[i] == 0 ? 0 : term;
  }
}

template <bool kJoint, class T, class B>
PGEST_CLONES Refusal backward_bits(const BitStatsBackward& args, int64_t begin, int64_t end) {
  using A = Acc<T>;
  const BitRows& in = args.in;
  const auto* grad_logp = static_cast<const A*>(args.grad_logp);
  const auto* grad_entropy = static_cast<const A*>(args.grad_entropy);
  Block<A> block;
  A sums[kBitBlock], slopes[kBitBlock];
  for (int64_t r = begin; r < end; ++r) {
    const int64_t samples = grad_logp ? in.num_samples : 0;
    // A row without a gradient is not read, so that a loss may mask it afterwards: no 0 * NaN.
    bool silent = kJoint && !(grad_entropy && grad_entropy[r] != 0);
    for (int64_t s = 0; s < samples && silent; ++s) silent = grad_logp[s * in.num_rows + r] == 0;
    if (silent) {
      std::fill_n(static_cast<T*>(args.grad_logits) + r * in.width, in.width, T{});
      continue;
    }
    for (int64_t at = 0; at < in.width; at += kBitBlock) {
      const int64_t n = std::min(kBitBlock, in.width - at);
      const int64_t place = r * in.width + at;
      block.load(static_cast<const T*>(in.logits) + place, n);
      std::fill_n(sums, n, A(0));
      for (int64_t s = 0; s < samples; ++s) {
        const int64_t from = s * in.num_rows * in.width + place;
        const A* weight = grad_logp + (kJoint ? s * in.num_rows + r : from);
        if (kJoint && *weight == 0) continue;
        add_sample<kJoint>(block, static_cast<const B*>(in.bits) + from, weight, n, sums);
      }
#pragma omp simd
      for (int64_t i = 0; i < n; ++i) sums[i] = signed_by(block.z[i], sums[i]);
      if (grad_entropy) {
#pragma omp simd
        for (int64_t i = 0; i < n; ++i) {
          slopes[i] = entropy_slope(block.z[i], block.rare[i]);
          const A h = grad_entropy[kJoint ? r : place + i];
          sums[i] += h == 0 ? 0 : h * slopes[i];
        }
      }
      T* out = static_cast<T*>(args.grad_logits) + place;
#pragma omp simd
      for (int64_t i = 0; i < n; ++i) round_to(out[i], sums[i]);
    }
  }
  return {};
}

template <class T>
Refusal forward(const BitStatsForward& args, int64_t begin, int64_t end) {
  if (args.in.joint)
    return args.in.bytes ? forward_bits<true, T, uint8_t>(args, begin, end)
                         : forward_bits<true, T, T>(args, begin, end);
  return args.in.bytes ? forward_bits<false, T, uint8_t>(args, begin, end)
                       : forward_bits<false, T, T>(args, begin, end);
}

template <class T>
Refusal backward(const BitStatsBackward& args, int64_t begin, int64_t end) {
  if (args.in.joint)
    return args.in.bytes ? backward_bits<true, T, uint8_t>(args, begin, end)
                         : backward_bits<true, T, T>(args, begin, end);
  return args.in.bytes ? backward_bits<false, T, uint8_t>(args, begin, end)
                       : backward_bits<false, T, T>(args, begin, end);
}

}  // namespace

Refusal bit_stats_cpu(const BitStatsForward& args, int64_t begin, int64_t end) {
  return by_dtype(args.in.dtype, [&](auto t) { return forward<decltype(t)>(args, begin, end); });
}

Refusal bit_stats_backward_cpu(const BitStatsBackward& args, int64_t begin, int64_t end) {
  return by_dtype(args.in.dtype, [&](auto t) { return backward<decltype(t)>(args, begin, end); });
}

}  // namespace pgest
