// Draws of bits on the CPU: a thread takes blocks of logits, and draws all samples of a block.

#include "bit_block.h"
#include "noise.h"

namespace pgest {
namespace {

static_assert(kNoiseBlock == kBitBlock);

template <class B>
PGEST_INLINE void store_bit(B& out, bool bit) {
  if constexpr (sizeof(B) == 1) {
    out = bit;
  } else {
    round_to(out, bit ? Acc<B>(1) : Acc<B>(0));
  }
}

// 1 where u < p; where it mirrors, where 1 - u <= p, which has the same probability on any grid.
template <bool kMirror, class A, class B>
PGEST_INLINE void from_uniforms(const A* p, const A* u, int64_t n, B* out) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) store_bit(out[i], kMirror ? 1 - u[i] <= p[i] : u[i] < p[i]);
}

template <class A, class B>
PGEST_INLINE void from_words(const Block<A>& block, const uint32_t* high, const uint32_t* low,
                             int32_t mirror, int64_t n, B* out) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i)
    store_bit(out[i], draw_bit(block.z[i], block.rare[i], high[i], low[i], mirror));
}

template <class A>
PGEST_INLINE bool uniforms_fit(const A* u, int64_t n) {
  int32_t bad = 0;
#pragma omp simd reduction(| : bad)
  for (int64_t i = 0; i < n; ++i) bad |= !(u[i] >= 0 && u[i] < 1);
  return !bad;
}

template <class A>
PGEST_INLINE void probabilities(const Block<A>& block, int64_t n, A* p) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i)
    p[i] = block.z[i] > 0 ? 1 / (1 + decay(block.z[i])) : block.rare[i];
}

template <class T, class B>
PGEST_CLONES Refusal draw_bits(const SampleBits& args, int64_t begin, int64_t end) {
  using A = Acc<T>;
  Block<A> block;
  A p[kBitBlock];
  uint32_t high[kNoiseBlock], low[kNoiseBlock];
  const int64_t draws = args.antithetic ? args.num_samples / 2 : args.num_samples;
  const auto* uniforms = static_cast<const A*>(args.uniforms);
  for (int64_t k = begin; k < end; ++k) {
    const int64_t at = k * kBitBlock;
    const int64_t n = std::min(kBitBlock, args.numel - at);
    block.load(static_cast<const T*>(args.logits) + at, n);
    if (std::any_of(block.z, block.z + n, [](A z) { return z != z; })) return {Refusal::nan, k, 0};
    probabilities(block, n, p);
    for (int64_t s = 0; s < draws; ++s) {
      B* out = static_cast<B*>(args.out) + s * args.numel + at;
      B* mirrored = args.antithetic ? out + draws * args.numel : nullptr;
      if (uniforms) {
        const A* u = uniforms + s * args.numel + at;
        if (!uniforms_fit(u, n)) return {Refusal::noise, k, s};
        from_uniforms<false>(p, u, n, out);
        if (mirrored) from_uniforms<true>(p, u, n, mirrored);
      } else {
        noise_block(static_cast<uint64_t>(*args.seed), s, at, high, low);
        from_words(block, high, low, 0, n, out);
        if (mirrored) from_words(block, high, low, -1, n, mirrored);
      }
    }
  }
  return {};
}

template <class T>
Refusal draw(const SampleBits& args, int64_t begin, int64_t end) {
  return args.bytes ? draw_bits<T, uint8_t>(args, begin, end) : draw_bits<T, T>(args, begin, end);
}

}  // namespace

Refusal sample_bits_cpu(const SampleBits& args, int64_t begin, int64_t end) {
  return by_dtype(args.dtype, [&](auto t) { return draw<decltype(t)>(args, begin, end); });
}

}  // namespace pgest
