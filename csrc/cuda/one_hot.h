// Rows with a single 1.
#pragma once

#include "storage.h"
#include "team.h"

namespace pgest::cuda {

// Where a token is in the chunk at `at`, or -1.
__device__ __forceinline__ int place_in(int64_t at, int64_t token) {
  return token >= at && token < at + kChunk ? static_cast<int>(token - at) : -1;
}

// 1 at the token, which may be -1 for none, and `rest` elsewhere.
template <class Team, class T>
__device__ void write_one(T* out, int64_t vocab, int64_t token, Acc<T> rest) {
  for_even_chunks<Team>(vocab, [&](int64_t at, int n) {
    const int here = place_in(at, token);
    Acc<T> x[kChunk];
#pragma unroll
    for (int j = 0; j < kChunk; ++j) x[j] = j == here ? Acc<T>(1) : rest;
    store(out + at, n, x);
  });
}

}  // namespace pgest::cuda
