// The pass over a row that makes its statistics, keeping the sum of each block, and draws by weight:
// a uniform then needs only the block that it falls into.
#pragma once

#include <numeric>
#include <vector>

#include "../row.h"
#include "source.h"

namespace pgest {

constexpr int64_t kChunk = 64;

// The weights of a block relative to a pivot, with their sums by chunk.
template <class A>
struct Weights {
  alignas(64) A of[kBlock];
  double chunks[kBlock / kChunk];
  int64_t length = 0;

  PGEST_INLINE void make(const A* x, int64_t n, A pivot, A bits) {
    length = n;
    const A lowest = lowest_bits(bits);
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) of[i] = exp2_fast(clamp_bits((x[i] - pivot) * bits, lowest));
    for (int64_t c = 0; c * kChunk < n; ++c) sum_chunk(c);
  }

  PGEST_INLINE void sum_chunk(int64_t c) {
    const A* chunk = of + c * kChunk;
    const int64_t n = std::min(kChunk, length - c * kChunk);
    A sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; ++i) sum += chunk[i];
    chunks[c] = sum;
  }

  int64_t num_chunks() const { return (length + kChunk - 1) / kChunk; }
  double sum() const { return std::accumulate(chunks, chunks + num_chunks(), 0.0); }
};

// Which of n weights the cumulative sum passes `target` at; what is left of the target there. The
// last that is not zero where rounding has carried the target past all: none with weight 0 is chosen.
template <class A>
PGEST_INLINE int64_t walk(const A* weights, int64_t n, double& target) {
  int64_t chosen = 0;
  double left = target;
  for (int64_t i = 0; i < n; ++i) {
    if (!(weights[i] > 0)) continue;
    chosen = i;
    target = left;
    if (left < weights[i]) break;
    left -= weights[i];
  }
  return chosen;
}

// What a thread needs.
template <class A>
struct DrawScratch {
  std::vector<RowSums> blocks;   // each relative to the largest value up to its end
  std::vector<double> mass;      // of the blocks, relative to the pivot of the row
  std::vector<int64_t> removed;  // tokens that are no longer to be drawn
  std::vector<double> uniforms;
  std::vector<int64_t> order;
  Weights<A> weights;
  alignas(64) A buffer[kBlock];
};

template <bool kTransform, class T>
class Row {
  using A = Acc<T>;

 public:
  PGEST_INLINE Row(const Source<kTransform, T>& source, double bits, DrawScratch<A>& scratch)
      : source_(source), bits_(bits), s_(scratch) {
    s_.blocks.resize(source.count());
    s_.mass.resize(source.count());
    s_.removed.clear();
  }

  // The sums of what is left of the row.
  template <bool kEntropy>
  PGEST_INLINE RowSums pass() {
    RowSums sums;
    for (int64_t b = 0; b < source_.count(); ++b) {
      s_.blocks[b] = block_sums<kEntropy>(load(b), source_.length(b), sums.pivot);
      sums = merge(sums, s_.blocks[b], bits_);
    }
    pivot_ = sums.pivot;
    weighed_ = -1;
    for (int64_t b = 0; b < source_.count(); ++b) s_.mass[b] = mass_of(s_.blocks[b]);
    return sums;
  }

  // The weight of what is left, relative to the pivot of the pass.
  PGEST_INLINE double rest() const {
    return std::accumulate(s_.mass.begin(), s_.mass.end(), 0.0);
  }

  // The token at the part u of the weight that is left, which is `rest`.
  PGEST_INLINE int64_t draw(double rest, double u) {
    double target = u * rest;
    const int64_t b = walk(s_.mass.data(), source_.count(), target);
    weigh(b);
    const Weights<A>& w = s_.weights;
    double inside = target / s_.mass[b] * w.sum();
    const int64_t c = walk(w.chunks, w.num_chunks(), inside);
    const int64_t n = std::min(kChunk, w.length - c * kChunk);
    return b * kBlock + c * kChunk + walk(w.of + c * kChunk, n, inside);
  }

  // Takes out the token that was drawn last. Sums are made anew: a difference would cancel where it
  // had most of the weight.
  PGEST_INLINE void remove(int64_t token) {
    s_.removed.push_back(token);
    s_.weights.of[token % kBlock] = 0;
    s_.weights.sum_chunk(token % kBlock / kChunk);
    const int64_t b = token / kBlock;
    s_.mass[b] = mass_of({s_.blocks[b].pivot, s_.weights.sum(), 0});
  }

 private:
  PGEST_INLINE double mass_of(const RowSums& block) const {
    return rebase(block, pivot_, bits_).s0;
  }

  PGEST_INLINE const A* load(int64_t block) {
    const A* x = source_.load(block, s_.buffer);
    for (const int64_t token : s_.removed) {
      if (token / kBlock != block) continue;
      if (x != s_.buffer) std::copy_n(x, source_.length(block), s_.buffer);
      x = s_.buffer;
      s_.buffer[token % kBlock] = -kInfinity<A>;
    }
    return x;
  }

  PGEST_INLINE void weigh(int64_t block) {
    if (weighed_ == block) return;
    weighed_ = block;
    const double pivot = s_.blocks[block].pivot;
    s_.weights.make(load(block), source_.length(block), static_cast<A>(pivot), static_cast<A>(bits_));
  }

  template <bool kEntropy>
  PGEST_INLINE RowSums block_sums(const A* x, int64_t n, double before) {
    const A bits = static_cast<A>(bits_), lowest = lowest_bits(bits);
    A largest = -kInfinity<A>;
#pragma omp simd reduction(max : largest)
    for (int64_t i = 0; i < n; ++i) largest = x[i] > largest ? x[i] : largest;
    const double highest = std::max<double>(before, largest);
    // A block of -inf alone is still summed, relative to 0: it may hold a NaN.
    const A pivot = highest == -kInfinity<double> ? 0 : static_cast<A>(highest);
    A s0 = 0, s1 = 0;
#pragma omp simd reduction(+ : s0, s1)
    for (int64_t i = 0; i < n; ++i) {
      const A d = clamp_bits((x[i] - pivot) * bits, lowest);
      const A e = exp2_fast(d);
      s0 += e;
      if constexpr (kEntropy) s1 += e * d;
    }
    return {highest, s0, s1};
  }

  const Source<kTransform, T>& source_;
  const double bits_;
  DrawScratch<A>& s_;
  double pivot_ = 0;
  int64_t weighed_ = -1;  // the block that the weights are of
};

}  // namespace pgest
