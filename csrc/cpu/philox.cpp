// Blocks of random words on the CPU. The plain loop vectorises, but GCC finds no product of 32 bits by
// 32 that keeps the even and the odd lanes where they are, and shuffles instead: with AVX2 by hand it
// takes less than half the time, and noise is mostly this.

#include "noise.h"

#if defined(__AVX2__) || defined(PGEST_HAS_CLONES)
#include <immintrin.h>
#endif

namespace pgest {
namespace {

// Word w of a group's counters, and as the next word of word w - 1.
constexpr int64_t place(int64_t w) { return w % 4 * kNoiseCounters; }

[[maybe_unused]] void plain_group(uint64_t seed, int64_t row, int64_t first, uint32_t* high,
                                  uint32_t* low) {
#pragma omp simd
  for (int64_t c = 0; c < kNoiseCounters; ++c) {
    const Words w = noise_words(seed, row, first + c);
    high[c + place(0)] = low[c + place(3)] = w.a;
    high[c + place(1)] = low[c + place(0)] = w.b;
    high[c + place(2)] = low[c + place(1)] = w.c;
    high[c + place(3)] = low[c + place(2)] = w.d;
  }
}

#if defined(__AVX2__) || defined(PGEST_HAS_CLONES)
#if defined(__AVX2__)
#define PGEST_AVX2
#else
#define PGEST_AVX2 __attribute__((target("avx2")))
#endif

// The high and the low words of x m, lane by lane.
struct Product {
  __m256i high, low;
};

PGEST_AVX2 PGEST_INLINE Product multiply(__m256i x, __m256i m) {
  const __m256i even = _mm256_mul_epu32(x, m);
  const __m256i odd = _mm256_mul_epu32(_mm256_srli_epi64(x, 32), m);
  return {_mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xaa),
          _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xaa)};
}

// `philox`, round by round for two vectors of counters, whose latencies overlap.
PGEST_AVX2 void avx2_group(uint64_t seed, int64_t row, int64_t first, uint32_t* high, uint32_t* low) {
  const __m256i m0 = _mm256_set1_epi64x(kPhiloxM0), m1 = _mm256_set1_epi64x(kPhiloxM1);
  const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  __m256i x[2][4];
  for (int half = 0; half < 2; ++half) {
    const int start = static_cast<int>(static_cast<uint32_t>(first)) + 8 * half;
    x[half][0] = _mm256_add_epi32(_mm256_set1_epi32(start), lanes);
    x[half][1] = _mm256_set1_epi32(static_cast<int>(first >> 32));
    x[half][2] = _mm256_set1_epi32(static_cast<int>(row));
    x[half][3] = _mm256_set1_epi32(static_cast<int>(row >> 32));
  }
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < kPhiloxRounds; ++round, k0 += kPhiloxK0, k1 += kPhiloxK1) {
    const __m256i key0 = _mm256_set1_epi32(static_cast<int>(k0));
    const __m256i key1 = _mm256_set1_epi32(static_cast<int>(k1));
    for (auto& w : x) {
      const Product p0 = multiply(w[0], m0), p1 = multiply(w[2], m1);
      w[0] = _mm256_xor_si256(_mm256_xor_si256(p1.high, w[1]), key0);
      w[2] = _mm256_xor_si256(_mm256_xor_si256(p0.high, w[3]), key1);
      w[1] = p1.low;
      w[3] = p0.low;
    }
  }
  for (int half = 0; half < 2; ++half)
    for (int w = 0; w < 4; ++w) {
      auto* as_word = reinterpret_cast<__m256i*>(high + place(w) + 8 * half);
      auto* as_next = reinterpret_cast<__m256i*>(low + place(w + 3) + 8 * half);
      _mm256_storeu_si256(as_word, x[half][w]);
      _mm256_storeu_si256(as_next, x[half][w]);
    }
}
#endif

using Group = void (*)(uint64_t, int64_t, int64_t, uint32_t*, uint32_t*);

Group pick_group() {
#if defined(__AVX2__)
  return avx2_group;
#elif defined(PGEST_HAS_CLONES)
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") ? avx2_group : plain_group;
#else
  return plain_group;
#endif
}

}  // namespace

void noise_block(uint64_t seed, int64_t row, int64_t at, uint32_t* high, uint32_t* low) {
  static const Group group = pick_group();
  for (int64_t g = 0; g < kNoiseBlock; g += kNoiseGroup)
    group(seed, row, (at + g) / 4, high + g, low + g);
}

}  // namespace pgest
