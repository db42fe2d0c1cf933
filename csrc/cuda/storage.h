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

template <class T>
struct alignas(16) Packed {
  static constexpr int kSize = 16 / sizeof(T);
  T of[kSize];
};

template <class T>
__device__ __forceinline__ bool is_aligned(const T* p) {
  return reinterpret_cast<uintptr_t>(p) % 16 == 0;
}

// A whole chunk from an aligned address.
template <class T>
__device__ __forceinline__ void load_aligned(const T* p, Acc<T>* x) {
  constexpr int kSize = Packed<T>::kSize;
  Packed<T> words[kChunk / kSize];
#pragma unroll
  for (int w = 0; w < kChunk / kSize; ++w) words[w] = reinterpret_cast<const Packed<T>*>(p)[w];
#pragma unroll
  for (int i = 0; i < kChunk; ++i) x[i] = value(words[i / kSize].of[i % kSize]);
}

// Elements [0, n) of p, the rest of the chunk `otherwise`.
template <class T>
__device__ __forceinline__ void load(const T* p, int n, Acc<T>* x, Acc<T> otherwise) {
  if (n == kChunk && is_aligned(p)) return load_aligned(p, x);
#pragma unroll
  for (int i = 0; i < kChunk; ++i) x[i] = i < n ? value(p[i]) : otherwise;
}

template <class T>
__device__ __forceinline__ void store(T* p, int n, const Acc<T>* x) {
  if (n == kChunk && is_aligned(p)) {
#pragma unroll
    for (int w = 0; w < kChunk / Packed<T>::kSize; ++w) {
      Packed<T> word;
#pragma unroll
      for (int i = 0; i < Packed<T>::kSize; ++i) round_to(word.of[i], x[w * Packed<T>::kSize + i]);
      reinterpret_cast<Packed<T>*>(p)[w] = word;
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < kChunk; ++i)
    if (i < n) round_to(p[i], x[i]);
}

// Calls f(place in the row, length, whether whole and aligned) for each of the thread's chunks of a row
// of `size` elements. Chunks start at addresses of 16 bytes, but for what is before the first such. The
// last argument is a constant: no branch is between the loads of several whole chunks, so that they are
// under way together.
template <class Team, class T, class F>
__device__ __forceinline__ void for_chunks(const T* row, int64_t size, const F& f) {
  const int64_t past = reinterpret_cast<uintptr_t>(row) % 16 / sizeof(T);
  int64_t head = past == 0 ? 0 : 16 / static_cast<int64_t>(sizeof(T)) - past;
  if (head > size) head = size;
  const int64_t whole = (size - head) / kChunk, tail = head + whole * kChunk;
  if (head > 0 && Team::rank() == Team::size() - 1) f(int64_t{0}, static_cast<int>(head), Partial{});
#pragma unroll 2
  for (int64_t c = Team::rank(); c < whole; c += Team::size()) f(head + c * kChunk, kChunk, Whole{});
  if (tail < size && Team::rank() == whole % Team::size())
    f(tail, static_cast<int>(size - tail), Partial{});
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
