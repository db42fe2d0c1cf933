// Philox4x32-10, a counter-based random number generator (Salmon, Moraes, Dror and Shaw 2011, Parallel
// random numbers: as easy as 1, 2, 3): four words of 32 bits are a pure function of a counter and a key,
// so that noise is never stored, and is the same for any number of threads and on every device.
#pragma once

#include <cstdint>

#include "host_device.h"

namespace pgest {

struct Words {
  uint32_t a, b, c, d;
};

constexpr int kPhiloxRounds = 10;
constexpr uint32_t kPhiloxM0 = 0xD2511F53u, kPhiloxM1 = 0xCD9E8D57u;
constexpr uint32_t kPhiloxK0 = 0x9E3779B9u, kPhiloxK1 = 0xBB67AE85u;

// The product of two words. nvcc makes more than its one instruction of a product of 64 bits by 64.
PGEST_HD_INLINE uint64_t wide_product(uint32_t a, uint32_t b) {
#if defined(__CUDA_ARCH__)
  uint64_t product;
  asm("mul.wide.u32 %0, %1, %2;" : "=l"(product) : "r"(a), "r"(b));
  return product;
#else
  return uint64_t{a} * b;
#endif
}

PGEST_HD_INLINE Words philox(Words counter, uint64_t key) {
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < kPhiloxRounds; ++round) {
    const uint64_t p0 = wide_product(kPhiloxM0, counter.a), p1 = wide_product(kPhiloxM1, counter.c);
    counter = {static_cast<uint32_t>(p1 >> 32) ^ counter.b ^ k0, static_cast<uint32_t>(p1),
               static_cast<uint32_t>(p0 >> 32) ^ counter.d ^ k1, static_cast<uint32_t>(p0)};
    k0 += kPhiloxK0;
    k1 += kPhiloxK1;
  }
  return counter;
}

// Which words element `e` of row `row` gets. Elements come in groups of 64: element 16 w + c of a group
// has word w of its counter c, so that a vector of counters is four vectors of neighbours.
constexpr int64_t kNoiseCounters = 16;
constexpr int64_t kNoiseGroup = 4 * kNoiseCounters;

PGEST_HD_INLINE Words noise_words(uint64_t seed, int64_t row, int64_t counter) {
  const auto r = static_cast<uint64_t>(row), c = static_cast<uint64_t>(counter);
  return philox({static_cast<uint32_t>(c), static_cast<uint32_t>(c >> 32),
                 static_cast<uint32_t>(r), static_cast<uint32_t>(r >> 32)},
                seed);
}

}  // namespace pgest
