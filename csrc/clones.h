// Run-time choice of the instruction set.
#pragma once

// One binary, the best clone picked at load time. GCC on x86-64 Linux (ifunc) only; elsewhere, and
// with PGEST_NO_CLONES, what the compiler was told to build for (NEON on arm64).
#if !defined(PGEST_NO_CLONES) && defined(__x86_64__) && defined(__linux__) && defined(__GLIBC__) && defined(__GNUC__) && \
    !defined(__clang__)
#define PGEST_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#define PGEST_HAS_CLONES 1
#else
#define PGEST_CLONES
#endif
