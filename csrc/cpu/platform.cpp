// What depends on the operating system and the processor rather than on an op.

#include "simd.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace pgest {

void advise_huge_pages(void* data, int64_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr uintptr_t huge = uintptr_t{1} << 21;
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(data) + huge - 1) & ~(huge - 1);
  const uintptr_t end = (reinterpret_cast<uintptr_t>(data) + bytes) & ~(huge - 1);
  // A refusal only costs speed, so the result is not looked at.
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#else
  (void)data;
  (void)bytes;
#endif
}

const char* cpu_isa() {
#if defined(PGEST_HAS_CLONES)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("x86-64-v4")) return "x86-64-v4 (AVX-512)";
  if (__builtin_cpu_supports("x86-64-v3")) return "x86-64-v3 (AVX2, FMA)";
  return "x86-64 (SSE2)";
#elif defined(__aarch64__)
  return "arm64 (NEON)";
#elif defined(__AVX512F__)
  return "x86-64-v4 (AVX-512), fixed when built";
#elif defined(__AVX2__)
  return "x86-64-v3 (AVX2, FMA), fixed when built";
#else
  return "baseline, fixed when built";
#endif
}

}  // namespace pgest
