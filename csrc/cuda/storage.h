// The types that rows are stored in, and how a thread reads and writes a chunk of one: 16 bytes at a
// time where the address allows it.
#pragma once

#include <limits>
#include <type_traits>

#include "device.h"

namespace pgest::cuda {

struct BFloat16 {
  uint16_t bits;
};
struct Half {
  uint16_t bits;
};

// What a storage type is computed in.
template <class T>
struct Accumulate {
  using type = float;
};
template <>
struct Accumulate<double> {
  using type = double;
};
template <class T>
using Acc = typename Accumulate<T>::type;

template <class A>
constexpr A kInfinity = std::numeric_limits<A>::infinity();

__device__ __forceinline__ float value(float x) { return x; }
__device__ __forceinline__ double value(double x) { return x; }
__device__ __forceinline__ void round_to(float& out, float x) { out = x; }
__device__ __forceinline__ void round_to(double& out, double x) { out = x; }

#if !defined(PGEST_EMULATE)
__device__ __forceinline__ float value(BFloat16 x) {
  return __uint_as_float(static_cast<uint32_t>(x.bits) << 16);
}
__device__ __forceinline__ float value(Half x) {
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
  return y;
}
__device__ __forceinline__ void round_to(BFloat16& out, float x) {
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(out.bits) : "f"(x));
}
__device__ __forceinline__ void round_to(Half& out, float x) {
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(out.bits) : "f"(x));
}
#else
inline float value(BFloat16 x) { return emulated::value_of_bfloat16(x.bits); }
inline float value(Half x) { return emulated::value_of_half(x.bits); }
inline void round_to(BFloat16& out, float x) { out.bits = emulated::bfloat16_of(x); }
inline void round_to(Half& out, float x) { out.bits = emulated::half_of(x); }
#endif

using Whole = std::true_type;
using Partial = std::false_type;

// 16 bytes of a row, in registers of 32 bits.
struct alignas(16) Word {
  uint32_t of[4];
};
template <class T>
constexpr int kInWord = 16 / sizeof(T);
template <class T>
constexpr int kWords = kChunk / kInWord<T>;

template <class T>
__device__ __forceinline__ bool is_aligned(const T* p) {
  return reinterpret_cast<uintptr_t>(p) % sizeof(Word) == 0;
}

// The elements of a word. Those of a half type are converted two by two.
template <class T>
__device__ __forceinline__ void unpack(const Word& word, Acc<T>* x) {
  T of[kInWord<T>];
  memcpy(of, &word, sizeof(word));
#pragma unroll
  for (int i = 0; i < kInWord<T>; ++i) x[i] = value(of[i]);
}
template <class T>
__device__ __forceinline__ Word pack(const Acc<T>* x) {
  T of[kInWord<T>];
#pragma unroll
  for (int i = 0; i < kInWord<T>; ++i) round_to(of[i], x[i]);
  Word word;
  memcpy(&word, of, sizeof(word));
  return word;
}

#if !defined(PGEST_EMULATE)
template <>
__device__ __forceinline__ void unpack<BFloat16>(const Word& word, float* x) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    x[2 * i] = __uint_as_float(word.of[i] << 16);
    x[2 * i + 1] = __uint_as_float(word.of[i] & 0xffff0000u);
  }
}
template <>
__device__ __forceinline__ Word pack<BFloat16>(const float* x) {
  Word word;
#pragma unroll
  for (int i = 0; i < 4; ++i)
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word.of[i]) : "f"(x[2 * i + 1]), "f"(x[2 * i]));
  return word;
}
template <>
__device__ __forceinline__ Word pack<Half>(const float* x) {
  Word word;
#pragma unroll
  for (int i = 0; i < 4; ++i)
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word.of[i]) : "f"(x[2 * i + 1]), "f"(x[2 * i]));
  return word;
}
#endif

// 16 bytes from an address that is not aligned to them.
template <class T>
__device__ __forceinline__ Word gather(const T* p) {
  Word word;
  if constexpr (sizeof(T) == 2) {
#pragma unroll
    for (int i = 0; i < 4; ++i)
      word.of[i] = p[2 * i].bits | static_cast<uint32_t>(p[2 * i + 1].bits) << 16;
  } else {
#pragma unroll
    for (int i = 0; i < kInWord<T>; ++i) {
      const T x = p[i];  // one load: the address is aligned to its type
      memcpy(word.of + i * (sizeof(T) / 4), &x, sizeof(T));
    }
  }
  return word;
}

// A whole chunk as it was read. Several are read before the first is used, so that their loads are under
// way together, whatever branches are between their uses.
template <class T>
struct Fetched : Whole {
  Word words[kWords<T>];

  __device__ __forceinline__ void values(Acc<T>* x) const {
#pragma unroll
    for (int w = 0; w < kWords<T>; ++w) unpack<T>(words[w], x + w * kInWord<T>);
  }
};

template <class T>
__device__ __forceinline__ Fetched<T> fetch(const T* p, bool aligned) {
  Fetched<T> chunk;
  if (aligned) {
#pragma unroll
    for (int w = 0; w < kWords<T>; ++w) chunk.words[w] = reinterpret_cast<const Word*>(p)[w];
  } else {
#pragma unroll
    for (int w = 0; w < kWords<T>; ++w) chunk.words[w] = gather(p + w * kInWord<T>);
  }
  return chunk;
}

// Elements [0, n) of p, the rest of the chunk `otherwise`.
template <class T>
__device__ __forceinline__ void load(const T* p, int n, Acc<T>* x, Acc<T> otherwise) {
  if (n == kChunk) return fetch(p, is_aligned(p)).values(x);
#pragma unroll
  for (int i = 0; i < kChunk; ++i) x[i] = i < n ? value(p[i]) : otherwise;
}

// The same, of a chunk whose length is known from its type, or that has been fetched from p.
template <class T, class Chunk>
__device__ __forceinline__ void load_chunk(const T* p, int n, Acc<T>* x, Acc<T> otherwise, const Chunk& chunk) {
  if constexpr (std::is_base_of_v<Fetched<T>, Chunk>) {
    static_cast<const Fetched<T>&>(chunk).values(x);
  } else {
    load(p, Chunk::value ? kChunk : n, x, otherwise);
  }
}
// Elsewhere than where the chunk comes from.
template <class T, class Size>
__device__ __forceinline__ void load_beside(const T* p, int n, Acc<T>* x, Acc<T> otherwise, const Size&) {
  load(p, Size::value ? kChunk : n, x, otherwise);
}

template <class T>
__device__ __forceinline__ void store(T* p, int n, const Acc<T>* x) {
  if (n == kChunk && is_aligned(p)) {
#pragma unroll
    for (int w = 0; w < kWords<T>; ++w) reinterpret_cast<Word*>(p)[w] = pack<T>(x + w * kInWord<T>);
    return;
  }
#pragma unroll
  for (int i = 0; i < kChunk; ++i)
    if (i < n) round_to(p[i], x[i]);
}

// What a thread has under way at a time: with a thousand threads, as much as hides a load's latency.
constexpr int kBytesAhead = 32;

// Calls f(place in the row, length, chunk) for each of the thread's chunks of a row of `size` elements, in
// order. Where chunks start depends on no address, so that a row's sums are the same bits wherever it
// lies. `chunk` is what source.fetch(place, source.aligned()) gives, or Partial{}.
template <class Team, class Source, class F>
__device__ __forceinline__ void for_chunks_of(const Source& source, int64_t size, const F& f) {
  using Chunk = decltype(source.fetch(0, true));
  constexpr int kAhead = sizeof(Chunk) < kBytesAhead ? kBytesAhead / sizeof(Chunk) : 1;
  const int whole = static_cast<int>(size / kChunk), step = Team::size();  // of rows below 16 GB
  const int64_t tail = int64_t{whole} * kChunk;
  const bool aligned = source.aligned();
  for (int c = Team::rank(); c < whole; c += kAhead * step) {
    Chunk chunks[kAhead];
    const auto fetch = [&](bool aligned) {
#pragma unroll
      for (int k = 0; k < kAhead; ++k) {
        const int last = c + k * step < whole ? c + k * step : whole - 1;  // no branch, so no half of a value
        chunks[k] = source.fetch(int64_t{last} * kChunk, aligned);
      }
    };
    // One branch for all: what is done for other addresses must not be in the way of aligned ones.
    if (aligned) {
      fetch(true);
    } else {
      fetch(false);
    }
#pragma unroll
    for (int k = 0; k < kAhead; ++k)
      if (c + k * step < whole) f(int64_t{c + k * step} * kChunk, kChunk, chunks[k]);
  }
  if (tail < size && Team::rank() == whole % step) f(tail, static_cast<int>(size - tail), Partial{});
}

template <class T>
struct OneRow {
  const T* row;
  __device__ __forceinline__ bool aligned() const { return is_aligned(row); }
  __device__ __forceinline__ Fetched<T> fetch(int64_t at, bool aligned) const {
    return cuda::fetch(row + at, aligned);
  }
};

template <class Team, class T, class F>
__device__ __forceinline__ void for_chunks(const T* row, int64_t size, const F& f) {
  for_chunks_of<Team>(OneRow<T>{row}, size, f);
}

// Calls f(place in the row, length) for each of the thread's chunks, of which the first starts where the row
// does, whatever its address: its elements fall to the same threads in every batch.
template <class Team, class F>
__device__ __forceinline__ void for_even_chunks(int64_t size, const F& f) {
#pragma unroll 1
  for (int64_t at = int64_t{kChunk} * Team::rank(); at < size; at += int64_t{kChunk} * Team::size())
    f(at, size - at < kChunk ? static_cast<int>(size - at) : kChunk);
}

// Calls f with the storage type of dtype as a constant.
template <class F>
const char* with_type(DType dtype, const F& f) {
  switch (dtype) {
    case DType::f64: return f.template operator()<double>();
    case DType::f32: return f.template operator()<float>();
    case DType::bf16: return f.template operator()<BFloat16>();
    case DType::f16: return f.template operator()<Half>();
  }
  return nullptr;
}

}  // namespace pgest::cuda
