// A row as a sequence of chunks, of which any part can be read.
#pragma once

#include "team.h"
#include "values.h"

namespace pgest::cuda {

// Items [first, last) of a sequence.
struct Part {
  int first, last;

  __device__ int size() const { return last - first; }
  // Number i of n pieces that have the same size, but for the last ones.
  __device__ Part piece(int i, int n) const {
    const int each = (size() + n - 1) / n;
    return {within(first + i * each), within(first + (i + 1) * each)};
  }

 private:
  __device__ int within(int at) const { return at < last ? at : last; }
};

// The values of a row in chunks, the last of which may be shorter.
template <class T>
class Chunks {
  using A = Acc<T>;

 public:
  __device__ Chunks(const LogitRows& in, int64_t row) : values_(in, row), size_(in.rows.vocab) {}

  __device__ A value_of(int64_t token) const { return values_.of(token); }
  __device__ Part all() const { return {0, static_cast<int>((size_ + kChunk - 1) / kChunk)}; }
  // The place in the row of a chunk's first value.
  __device__ static int64_t place(int chunk) { return static_cast<int64_t>(chunk) * kChunk; }

  // A chunk's values, -inf beyond the row's. Not inline: that it can do all takes registers.
  struct Chunk {
    A values[kChunk];
  };
  __device__ __noinline__ Chunk load(int chunk) const {
    const int64_t at = place(chunk), left = size_ - at;
    Chunk x;
    values_.load(at, left < kChunk ? static_cast<int>(left) : kChunk, x.values, Partial{});
    return x;
  }

  // Calls f(place in the row, values) for a thread's chunks of a part, in order. Several are read before
  // the first is used, so that their loads are under way together.
  template <class Lanes, class F>
  __device__ __forceinline__ void each(const Part& part, const F& f) const {
    int c = part.first + Lanes::rank();
    if (!values_.transformed) {
      const int whole = static_cast<int>(size_ / kChunk), end = part.last < whole ? part.last : whole;
      const bool aligned = is_aligned(values_.logits);
#pragma unroll 1
      for (; c + (kAhead - 1) * Lanes::size() < end; c += kAhead * Lanes::size()) {
        const Ahead ahead = aligned ? fetch_ahead<Lanes>(c, true) : fetch_ahead<Lanes>(c, false);
#pragma unroll
        for (int k = 0; k < kAhead; ++k) {
          A x[kChunk];
          ahead.of[k].values(x);
          f(place(c + k * Lanes::size()), x);
        }
      }
    }
#pragma unroll 1
    for (; c < part.last; c += Lanes::size()) {
      Chunk x = load(c);
      f(place(c), x.values);
    }
  }

 private:
  static constexpr int kAhead = 2 * kBytesAhead / sizeof(Fetched<T>);
  struct Ahead {
    Fetched<T> of[kAhead];
  };

  template <class Lanes>
  __device__ __forceinline__ Ahead fetch_ahead(int chunk, bool aligned) const {
    Ahead ahead;
#pragma unroll
    for (int k = 0; k < kAhead; ++k)
      ahead.of[k] = fetch(values_.logits + place(chunk + k * Lanes::size()), aligned);
    return ahead;
  }

  const Values<T> values_;
  const int64_t size_;
};

}  // namespace pgest::cuda
