// From the logits of a row to the values v whose softmax is taken: bias, softcap, threshold. What
// LogitRows calls v; excluded tokens and impossible ones are -inf.
#pragma once

#include "storage.h"

namespace pgest::cuda {

// softcap * tanh(x / softcap); infinite logits are not squashed, so that -inf stays impossible. The
// product is rounded as such, not together with what is subtracted from it: a value is the same to the
// bit wherever it is made.
template <class A>
__device__ __forceinline__ A squash(A x, A softcap, A inverse_softcap) {
  const A squashed = product(softcap, A(tanh(x * inverse_softcap)));
  return fabs(x) == kInfinity<A> ? x : squashed;
}

// A row of values. Where nothing is given, they are the logits as they are, at the cost of a branch a
// chunk that a team takes together.
template <class T>
struct Values {
  using A = Acc<T>;
  const T* logits;
  const A* bias;
  A softcap, inverse_softcap, threshold;
  bool transformed;

  __device__ Values(const LogitRows& in, int64_t row)
      : logits(static_cast<const T*>(in.logits) + in.rows.offset(row)),
        bias(static_cast<const A*>(in.bias)),
        softcap(static_cast<A>(in.softcap)),
        inverse_softcap(in.softcap != 0 ? static_cast<A>(1 / in.softcap) : 0),
        threshold(in.threshold ? static_cast<A>(in.threshold[row]) : -kInfinity<A>),
        transformed(bias || softcap != 0 || in.threshold) {}

  __device__ __forceinline__ bool excludes() const { return threshold != -kInfinity<A>; }

  // The chunk at place `at` of the row, -inf beyond its n elements.
  template <class Size>
  __device__ __forceinline__ void load(int64_t at, int n, A* x, const Size& size) const {
    load_chunk(logits + at, n, x, -kInfinity<A>, size);
    if (transformed) shape(at, n, x, size);
  }

  // Logits of a chunk to values.
  template <class Size>
  __device__ __forceinline__ void shape(int64_t at, int n, A* x, const Size& size) const {
    if (bias) add_bias(at, n, x, size);
    if (softcap != 0) {
#pragma unroll
      for (int i = 0; i < kChunk; ++i) x[i] = squash(x[i], softcap, inverse_softcap);
    }
    if (excludes()) {
#pragma unroll
      for (int i = 0; i < kChunk; ++i) x[i] = x[i] < threshold ? -kInfinity<A> : x[i];
    }
  }

  // z + bias of a chunk alone: what the softcap squashes.
  template <class Size>
  __device__ __forceinline__ void load_unsquashed(int64_t at, int n, A* x, const Size& size) const {
    load_chunk(logits + at, n, x, -kInfinity<A>, size);
    if (bias) add_bias(at, n, x, size);
  }
  __device__ A unsquashed(int64_t token) const {
    return value(logits[token]) + (bias ? bias[token] : 0);
  }

  // The value of one token, to the bit what `load` gives it in its chunk.
  __device__ A of(int64_t token) const {
    A x = unsquashed(token);
    if (softcap != 0) x = squash(x, softcap, inverse_softcap);
    return x < threshold ? -kInfinity<A> : x;
  }

 private:
  template <class Size>
  __device__ __forceinline__ void add_bias(int64_t at, int n, A* x, const Size& size) const {
    A b[kChunk];
    load_beside(bias + at, n, b, A(0), size);
#pragma unroll
    for (int i = 0; i < kChunk; ++i) x[i] += b[i];
  }
};

}  // namespace pgest::cuda
