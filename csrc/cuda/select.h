// Selection in a row that is not sorted, in integers, so that sums are the same in any order: values
// are compared by keys, weights are fixed-point numbers, and histograms are filled by atomics.
#pragma once

#include "../noise.h"
#include "parts.h"

namespace pgest::cuda {

// Unsigned numbers in the order of the values: the same for zeros of both signs, whose sum is 0.
__device__ __forceinline__ uint32_t key_of(float x) {
  const auto i = bits_as<uint32_t>(x + 0);
  return i >> 31 ? ~i : i | 0x80000000u;
}
__device__ __forceinline__ uint64_t key_of(double x) {
  const auto i = bits_as<uint64_t>(x + 0);
  return i >> 63 ? ~i : i | 0x8000000000000000u;
}
__device__ __forceinline__ float of_key(uint32_t k) { return bits_as<float>(k >> 31 ? k & 0x7fffffffu : ~k); }
__device__ __forceinline__ double of_key(uint64_t k) {
  return bits_as<double>(k >> 63 ? k & 0x7fffffffffffffffu : ~k);
}
template <class X>
__device__ __forceinline__ int bit_width(X x) {
  return 64 - __clzll(static_cast<long long>(x));
}
template <class A>
using Key = decltype(key_of(A()));

// What a team selects with, in shared memory: a histogram, whose weights are kept in two words since
// only sums of 32 bits are fast there, and the keys that are left once they are few.
template <int kLanes, class A>
struct Bench {
  using K = Key<A>;
  static constexpr int kDigit = kLanes == kWholeBlock ? 11 : 8;
  static constexpr int kBins = 1 << kDigit;
  static constexpr int kRoom = 8 * kBins / static_cast<int>(sizeof(K));
  uint32_t low[kBins], high[kBins];
  K keys[kRoom];
  unsigned count;  // of the keys; more than there is room for where they did not fit

  __device__ uint64_t sum(int bin) const { return static_cast<uint64_t>(high[bin]) << 32 | low[bin]; }

  __device__ void add(int bin, uint64_t weight) {
    const auto word = static_cast<uint32_t>(weight);
    const uint32_t before = atomicAdd(&low[bin], word);
    const uint32_t carry = static_cast<uint32_t>(weight >> 32) + (before + word < before);
    if (carry) atomicAdd(&high[bin], carry);
  }

  // Every thread gives up after its first key that finds no room.
  __device__ void keep(K key, bool& full) {
    if (full) return;
    const unsigned at = atomicAdd(&count, 1u);
    full = at >= kRoom;
    if (!full) keys[at] = key;
  }
};

template <int kLanes, class T>
class Selection {
  using A = Acc<T>;
  using K = Key<A>;
  using Team = TeamOf<kLanes>;
  using Desk = Bench<kLanes, A>;

 public:
  __device__ explicit Selection(const Chunks<T>& row) : row_(row), desk_(desk()) {}

  // Selects next from one value of each thread, until `restart`.
  __device__ void offer(A value) {
    Team::sync();
    desk_.keys[Team::rank()] = key_of(value);
    if (Team::rank() == 0) desk_.count = Team::size();
    kept_low_ = 0;
    kept_high_ = ~K(0);
  }
  __device__ void restart() { kept_high_ = 0; }

  // The smallest of the values in [lowest, highest] such that the weight of all larger ones is below
  // a target (> 0), which is asked for once their sum is known. `highest` is one of them. Time and
  // again the range is cut into bins of equal width in keys.
  template <class W, class F>
  __device__ A find(A lowest, A highest, const W& weight, const F& target_of) {
    K low = key_of(lowest), high = key_of(highest);
    uint64_t target = 0;
    while (low < high) {
      const int bits = bit_width(high - low);
      const int shift = bits > Desk::kDigit ? bits - Desk::kDigit : 0;
      fill(low, high, shift, weight);
      const uint64_t mine = sum_of_mine();
      const Prefix<uint64_t> sum = Team::prefix(mine);
      if (target == 0) target = at_most(target_of(sum.all), sum.all);
      high -= static_cast<K>(crossing(sum.before, mine, target)) << shift;
      const K width = (K(1) << shift) - 1;
      if (high - low > width) low = high - width;
    }
    return of_key(high);
  }

 private:
  __device__ static Desk& desk() {
    __shared__ Desk of_block[Team::kThreads / (kLanes == kWholeBlock ? Team::kThreads : kLanes)];
    return of_block[kLanes == kWholeBlock ? 0 : threadIdx.x / kWarp];
  }
  __device__ static uint64_t at_most(uint64_t x, uint64_t most) { return x < most ? x : most; }
  __device__ static int mine() { return Desk::kBins / Team::size(); }  // neighbouring bins of a thread

  // Bin 0 is at the upper end.
  template <class W>
  __device__ void fill(K low, K high, int shift, const W& weight) {
    const bool kept = kept_low_ <= low && high <= kept_high_;
    Team::sync();
    for (int i = Team::rank(); i < Desk::kBins; i += Team::size()) desk_.low[i] = desk_.high[i] = 0;
    if (!kept && Team::rank() == 0) desk_.count = 0;
    Team::sync();
    const auto add = [&](K key) {
      const bool inside = low <= key && key <= high;
      if (inside) desk_.add(static_cast<int>((high - key) >> shift), weight(of_key(key)));
      return inside;
    };
    if (kept) {
      for (unsigned i = Team::rank(); i < desk_.count; i += Team::size()) add(desk_.keys[i]);
    } else {
      bool full = false;
      row_.template each<Team>(row_.all(), [&](int64_t, const A* x) {
#pragma unroll
        for (int i = 0; i < kChunk; ++i)
          if (add(key_of(x[i]))) desk_.keep(key_of(x[i]), full);
      });
    }
    Team::sync();
    if (kept) return;
    kept_low_ = low;
    kept_high_ = desk_.count <= Desk::kRoom ? high : 0;
  }

  __device__ uint64_t sum_of_mine() const {
    uint64_t sum = 0;
    for (int i = 0; i < mine(); ++i) sum += desk_.sum(Team::rank() * mine() + i);
    return sum;
  }

  // The bin in which the weight reaches the target; the target becomes relative to its upper end. One
  // thread knows.
  __device__ int crossing(uint64_t before, uint64_t mine, uint64_t& target) const {
    int bin = -1;
    if (before < target && target <= before + mine) {
      bin = Team::rank() * this->mine();
      for (uint64_t next; before + (next = desk_.sum(bin)) < target; ++bin) before += next;
    } else {
      before = 0;
    }
    target -= largest_of<Team>(before);
    return largest_of<Team>(bin);
  }

  const Chunks<T>& row_;
  Desk& desk_;
  K kept_low_ = 1, kept_high_ = 0;  // all keys of this range are on the desk
};

}  // namespace pgest::cuda
