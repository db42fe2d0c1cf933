// Logits of a row with their Gumbel noise, on CUDA. Making noise is most of what is done to an element:
// it is held on chip where a row is to be seen twice.
#pragma once

#include "../kernels/relaxed.h"
#include "../noise.h"
#include "soft.h"
#include "spread.h"

namespace pgest::cuda {

// gumbel_of(exponential_noise(...)) from the device's own logarithm. That is not accurate near 1, where
// -log(1 - u) / u takes its place: a polynomial on (0, 1/2], its relative error 2.3e-8.
__device__ __forceinline__ float gumbel_noise(uint32_t high, uint32_t low, float) {
  const float ln2 = static_cast<float>(kLn2);
  const NearEnd<float> u = near_end<float>(high, low);
  float p = 1.44110763f;
  p = p * u.end - 1.69581151f;
  p = p * u.end + 1.25766933f;
  p = p * u.end - 0.20353879f;
  p = p * u.end + 0.26961273f;
  p = p * u.end + 0.242805079f;
  p = p * u.end + 0.333700627f;
  p = p * u.end + 0.499992847f;
  p = p * u.end + 1.f;
  return -ln2 * log2_fast(u.upper ? -ln2 * log2_fast(u.end) : p * u.end);
}
__device__ __forceinline__ double gumbel_noise(uint32_t high, uint32_t low, double) {
  return gumbel_of(exponential_noise<double>(high, low));
}

// Noise that a thread has made for its first chunks, until the row is seen again.
template <int kLanes, class A>
class HeldNoise {
  using S = Spread<kLanes>;
  static constexpr int kBytes = (kLanes == 1 || kLanes == 8 ? 8 : 32) << 10;  // of a block
  static constexpr int kEntries = kBytes / static_cast<int>(sizeof(Neighbours<A>));

 public:
  __device__ HeldNoise() : chunks_(kEntries / S::kPairs / static_cast<int>(blockDim.x)), memory_(memory()) {}

  __device__ bool holds(int chunk) const { return chunk < chunks_; }
  __device__ void put(int chunk, const A* g) {
#pragma unroll
    for (int k = 0; k < S::kPairs; ++k) at(chunk, k) = {g[2 * k], g[2 * k + 1]};
  }
  __device__ void get(int chunk, A* g) const {
#pragma unroll
    for (int j = 0; j < S::kSize; ++j) g[j] = at(chunk, j / kNeighbours).of[j % kNeighbours];
  }

 private:
  __device__ static Neighbours<A>* memory() {
    __shared__ Neighbours<A> entries[kEntries];
    return entries;
  }
  // A thread's entries are so far apart that those of its neighbours lie between.
  __device__ Neighbours<A>& at(int chunk, int pair) const {
    return memory_[(chunk * S::kPairs + pair) * blockDim.x + threadIdx.x];
  }

  int chunks_;
  Neighbours<A>* memory_;
};

template <class T, int kLanes>
class NoisyRow {
  using A = Acc<T>;
  using S = Spread<kLanes>;

 public:
  static constexpr int kSize = S::kSize;

  __device__ NoisyRow(const NoisyRows& in, int64_t r)
      : row_(static_cast<const T*>(in.logits) + in.rows.offset(r)),
        uniforms_(in.uniforms ? static_cast<const A*>(in.uniforms) + r * in.rows.vocab : nullptr),
        size_(in.rows.vocab),
        r_(r),
        seed_(in.seed ? static_cast<uint64_t>(*in.seed) : 0) {}

  // Calls f(where a chunk starts, logits, noise), to see the row once, for the first time, or again.
  template <class F>
  __device__ __forceinline__ void once(const F& f) const {
    chunks(f, [&](int, int64_t first, A* g) { make(first, g); });
  }
  template <class F>
  __device__ __forceinline__ void first(HeldNoise<kLanes, A>& held, const F& f) const {
    chunks(f, [&](int chunk, int64_t first, A* g) {
      make(first, g);
      if (held.holds(chunk)) held.put(chunk, g);
    });
  }
  template <class F>
  __device__ __forceinline__ void again(const HeldNoise<kLanes, A>& held, const F& f) const {
    chunks(f, [&](int chunk, int64_t first, A* g) {
      if (held.holds(chunk)) {
        held.get(chunk, g);
      } else {
        make(first, g);
      }
    });
  }

 private:
  template <class F, class Noise>
  __device__ __forceinline__ void chunks(const F& f, const Noise& noise) const {
    int chunk = 0;  // of the thread
    for_spread<kLanes>(size_, [&](int64_t first) {
      A z[kSize], g[kSize];
      noise(chunk++, first, g);
      load_spread<kLanes>(row_, first, size_, z, -kInfinity<A>);
      f(first, z, g);
    });
  }

  __device__ __forceinline__ void make(int64_t first, A* g) const {
    if (uniforms_) return from_uniforms(first, g);
#pragma unroll
    for (int i = 0; i < kNeighbours; ++i) {
      const Words w = noise_words(seed_, r_, counter_of(first) + i);
      g[i] = gumbel_noise(w.a, w.b, A(0));
      if constexpr (S::kPairs == 4) {
        g[2 + i] = gumbel_noise(w.b, w.c, A(0));
        g[4 + i] = gumbel_noise(w.c, w.d, A(0));
        g[6 + i] = gumbel_noise(w.d, w.a, A(0));
      }
    }
  }

  __device__ __forceinline__ void from_uniforms(int64_t first, A* g) const {
    load_spread<kLanes>(uniforms_, first, size_, g, A(0.5));
    bool fits = true;
#pragma unroll
    for (int j = 0; j < kSize; ++j) {
      fits = fits && g[j] >= 0 && g[j] < 1;
      g[j] = gumbel_of(exponential_of(g[j]));
    }
    if (!fits) refuse(Refusal::noise, r_, 0);
  }

  const T* row_;
  const A* uniforms_;
  const int64_t size_, r_;
  const uint64_t seed_;
};

// What logits are relative to where noise is added to them, so that it keeps its precision however large
// they are: about the largest that the thread has seen.
template <class A>
struct Base {
  A value = -kInfinity<A>;

  __device__ A get() const { return value == -kInfinity<A> ? 0 : value; }

  // By how much the base rose for a chunk, mostly 0.
  template <int n>
  __device__ __forceinline__ A raise(const A* z) {
    constexpr A slack = 8;
    A top = z[0];
#pragma unroll
    for (int j = 1; j < n; ++j) top = fmax(top, z[j]);
    if (!(top > value + slack)) return 0;
    const A by = top - value;
    value = top;
    return by;
  }
};

// The elements of a softmax with noise.
template <class A>
struct NoisySoftmax {
  Softmax<A> softmax;
  A base;

  __device__ __forceinline__ A operator()(A z, A g) const { return softmax((z - base) + g); }
};

// The sums of a thread over a row with noise.
template <class A, Sums kSums>
struct NoisySums {
  Base<A> base;
  SoftSums<A, kSums> sums;

  // `more` is what SoftSums takes beside values and bits.
  template <int n, class... More>
  __device__ __forceinline__ void add(const A* z, const A* g, A bits, const More&... more) {
    const A by = base.template raise<n>(z);
    if (by != 0) sums.lower(by);
    A x[n];
#pragma unroll
    for (int j = 0; j < n; ++j) x[j] = (z[j] - base.get()) + g[j];
    sums.template add<n>(x, bits, more...);
  }

  template <class Team>
  __device__ SoftTotal merged(double bits) const {
    return sums.template merged<Team>(base.get(), bits);
  }

  template <class Team>
  __device__ NoisySoftmax<A> softmax(const SoftTotal& total, double bits) const {
    const A of_row = Base<A>{largest_of<Team>(base.value)}.get();
    return {Softmax<A>(total, of_row, bits), of_row};
  }
};

}  // namespace pgest::cuda
