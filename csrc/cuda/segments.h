// A row in segments whose sums lie in shared memory, in order of the vocabulary, and draws by weight
// from them: a uniform then needs only the segment that it falls into.
#pragma once

#include "parts.h"
#include "sums.h"

namespace pgest::cuda {

// Threads of a block that share a segment: they read whole cache lines.
constexpr int kSegmentLanes = 8;

// Tokens that are no longer to be drawn: they become impossible.
struct Drawn {
  const int64_t* tokens;
  int64_t stride, count = 0;

  template <class A>
  __device__ __forceinline__ void hide(int64_t at, A* x) const {
    const int64_t* token = tokens;
#pragma unroll 1
    for (int64_t s = 0; s < count; ++s, token += stride) {
      const int64_t place = *token - at;
      if (place < 0 || place >= kChunk) continue;
#pragma unroll
      for (int i = 0; i < kChunk; ++i)
        x[i] = i == place ? -kInfinity<A> : x[i];
    }
  }
};

// Where the part u of the weight of a sequence lies, u in [0, 1).
struct Place {
  Part part;
  double u;
};

// Narrows a place to one item. Of as many pieces as there are lanes, it is in the last that has weight
// and no more than u before it: so nothing without weight is chosen, wherever rounding carries u. Each
// time u is taken relative to the weight of the pieces as they are summed then.
template <class Lanes, class W>
__device__ Place narrow(Place in, const W& weight_of) {
#pragma unroll 1
  while (Lanes::size() > 1 && in.part.size() > 1) {
    const double weight = weight_of(in.part.piece(Lanes::rank(), Lanes::size()));
    const Prefix<double> sum = Lanes::prefix(weight);
    const double target = in.u * sum.all;
    const bool reached = weight > 0 && sum.before <= target;
    const int chosen = largest_of<Lanes>(reached ? Lanes::rank() : 0);
    in.part = in.part.piece(chosen, Lanes::size());
    in.u = Lanes::from(chosen, (target - sum.before) / weight);
  }
  return in;
}

template <int kLanes, class T>
class Segments {
  using A = Acc<T>;
  static constexpr int kSharing = kLanes == kWholeBlock ? kSegmentLanes : kLanes;
  static constexpr int kDrawing = kLanes == kWholeBlock ? kWarp : kLanes;
  using Team = TeamOf<kLanes>;
  using Sharing = TeamOf<kSharing>;  // the threads of a segment

 public:
  // The threads that draw together; a small team has one segment, and draws together.
  using Drawers = TeamOf<kDrawing>;
  struct Draw {
    int64_t token;
    int segment;
  };

  __device__ Segments(const LogitRows& in, int64_t row, double temperature)
      : row_(in, row), bits_(kLog2E / temperature), of_(slots() + (threadIdx.x - Team::rank()) / kSharing) {}

  __device__ A value_of(int64_t token) const { return row_.value_of(token); }

  // Sums all segments, by the whole team.
  __device__ void sum() {
    const int segment = Team::rank() / kSharing;
    const RowSums sums = sums_of<Sharing>(segment, [](int64_t, A*) {});
    Team::sync();  // the row before has been drawn from
    if (Sharing::rank() == 0) put(segment, sums);
    Team::sync();
  }

  // Sums one segment anew, by the drawers.
  __device__ void sum_again(int segment, const Drawn& drawn) {
    const RowSums sums = sums_of<Drawers>(segment, [&](int64_t at, A* x) { drawn.hide(at, x); });
    if (Drawers::rank() == 0) put(segment, sums);
    Drawers::sync();
  }

  // The sums of the row: for each of the drawers, together.
  __device__ RowSums all() const {
    RowSums sums;
#pragma unroll 1
    for (int k = Drawers::rank(); k < count(); k += Drawers::size()) sums = merge(sums, get(k), bits_);
    const double pivot = largest_of<Drawers>(sums.pivot);
    sums = rebase(sums, pivot, bits_);
    return {pivot, sum_of<Drawers>(sums.s0), sum_of<Drawers>(sums.s1)};
  }

  // The token at the part u of the weight that is left, by the drawers. `pivot` is the largest value.
  __device__ Draw draw(double pivot, double u, const Drawn& drawn) const {
    const Place place = narrow<Drawers>({{0, count()}, u}, [&](const Part& part) {
      double sum = 0;
#pragma unroll 1
      for (int k = part.first; k < part.last; ++k) sum += rebase(get(k), pivot, bits_).s0;
      return sum;
    });
    const int segment = place.part.first;
    const A base = static_cast<A>(of_[segment].pivot);
    const Place few = narrow<Drawers>({chunks(segment), place.u}, [&](const Part& part) {
      double sum = 0;
      row_.template each<TeamOf<1>>(part, [&](int64_t at, A* x) {
        drawn.hide(at, x);
        sum += weigh(x, base);
      });
      return sum;
    });
    return {walk(few, base, drawn), segment};
  }

 private:
  struct Slot {
    double pivot, s0, s1;  // relative to the segment's own largest value
  };

  __device__ static Slot* slots() {
    __shared__ Slot of_block[Team::kThreads / kSharing];
    return of_block;
  }
  __device__ void put(int segment, const RowSums& sums) { of_[segment] = {sums.pivot, sums.s0, sums.s1}; }
  __device__ RowSums get(int segment) const {
    const Slot& slot = of_[segment];
    return {slot.pivot, slot.s0, slot.s1};
  }

  __device__ static int count() { return Team::size() / kSharing; }
  __device__ Part chunks(int segment) const { return row_.all().piece(segment, count()); }

  template <class Lanes, class Hide>
  __device__ RowSums sums_of(int segment, const Hide& hide) const {
    Running<A> running;
    row_.template each<Lanes>(chunks(segment), [&](int64_t at, A* x) {
      hide(at, x);
      running.add(x, static_cast<A>(bits_));
    });
    return merged<Lanes>(running, bits_);
  }

  // Values to weights; their sum.
  __device__ A weigh(A* x, A base) const {
    A sum = 0;
#pragma unroll
    for (int i = 0; i < kChunk; ++i) sum += x[i] = exp2_fast((x[i] - base) * static_cast<A>(bits_));
    return sum;
  }

  // The token at a place in one chunk, or in the few of a thread that draws by itself.
  __device__ int64_t walk(const Place& place, A base, const Drawn& drawn) const {
    double all = 0, before = 0;
    const auto each = [&](const auto& use) {
#pragma unroll 1
      for (int c = place.part.first; c < place.part.last; ++c) {
        auto x = row_.load(c);
        drawn.hide(row_.place(c), x.values);
        const A sum = weigh(x.values, base);
        use(row_.place(c), x.values, sum);
      }
    };
    each([&](int64_t, const A*, A sum) { all += sum; });
    int64_t token = row_.place(place.part.first);
    each([&](int64_t at, const A* weights, A) {
#pragma unroll
      for (int i = 0; i < kChunk; ++i) {
        if (weights[i] > 0 && before <= place.u * all) token = at + i;
        before += weights[i];
      }
    });
    return token;
  }

  const Chunks<T> row_;
  const double bits_;
  Slot* const of_;
};

}  // namespace pgest::cuda
