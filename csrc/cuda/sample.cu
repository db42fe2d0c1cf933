// sample on CUDA: one pass over a row makes its statistics and the sums of its segments; a draw reads
// the segment that its uniform falls into again, from the cache.

#include "../kernels/sample.h"

#include "segments.h"

namespace pgest {
namespace cuda {
namespace {

// The uniforms of a row, in order of the samples.
struct Noise {
  const Sample& args;
  int64_t row;

  PGEST_HD double operator()(int64_t i) const { return args.noise[i * args.in.num_rows + row]; }
};

// What is written for a row.
template <class A>
struct Drawing {
  const Sample& args;
  int64_t row;

  __device__ int64_t place(int64_t s) const { return s * args.in.num_rows + row; }
  __device__ void put(int64_t s, double logp) const {
    static_cast<A*>(args.logp_out)[place(s)] = static_cast<A>(logp);
  }
  __device__ void put(const RowState& state) const {
    const int64_t rows = args.in.num_rows;
    const double entropy = args.entropy ? state.entropy : 0;
    if (args.entropy) static_cast<A*>(args.entropy_out)[row] = static_cast<A>(entropy);
    args.state_out[row] = state.pivot;
    args.state_out[rows + row] = state.log_s0;
    args.state_out[2 * rows + row] = entropy;
  }
  // A row that is not read: token 0, and 0 for all that is said of it.
  template <class Team>
  __device__ void leave_out() const {
#pragma unroll 1
    for (int64_t s = Team::rank(); s < args.num_samples; s += Team::size()) {
      args.tokens_out[place(s)] = 0;
      put(s, 0);
      if (args.perturbed_out) args.perturbed_out[place(s)] = 0;
    }
    if (Team::rank() == 0) put(RowState{0, 0, 0});
  }
};

template <class Team>
__device__ void check(const Noise& noise) {
  const int64_t count = count_of_uniforms(noise.args.method, noise.args.num_samples);
#pragma unroll 1
  for (int64_t i = Team::rank(); i < count; i += Team::size())
    if (!(noise(i) >= 0 && noise(i) < 1)) refuse(Refusal::noise, noise.row, 0);
}

// A warp per draw, as many at a time as a block has. Without replacement one warp draws one token after
// another; what is left is relative to the largest value that is, since the segment of each token is
// summed anew.
template <class Team, class Row, class Out>
__device__ void draw(Row& row, const Noise& noise, const RowState& state, double temperature, const Out& out) {
  using Drawers = typename Row::Drawers;
  const Sample& args = noise.args;
  const bool distinct = args.method == kWithoutReplacement;
  if (distinct && Team::rank() >= Drawers::size()) return;
  const int64_t step = distinct ? 1 : Team::size() / Drawers::size();
  Drawn drawn{args.tokens_out + noise.row, args.in.num_rows};
  double pivot = state.pivot, perturbed = kInfinity<double>, u;
#pragma unroll 1
  for (int64_t s = Team::rank() / Drawers::size(); s < args.num_samples; s += step) {
    if (distinct) {
      const RowSums left = row.all();
      pivot = left.pivot;
      if (pivot == -kInfinity<double>) refuse(Refusal::possible, noise.row, s);
      const double log_rest = log(left.s0) + (pivot - state.pivot) / temperature - state.log_s0;
      perturbed = next_perturbed(perturbed, noise(s), s > 0 ? log_rest : 0);
      u = noise(args.num_samples + s);
    } else {
      u = uniform_of(args.method, noise, s, args.num_samples);
    }
    const auto [token, segment] = row.draw(pivot, u, drawn);
    if (Drawers::rank() == 0) {
      args.tokens_out[out.place(s)] = token;
      if (distinct) args.perturbed_out[out.place(s)] = perturbed;
    }
    if (!distinct) continue;
    Drawers::sync();
    ++drawn.count;
    row.sum_again(segment, drawn);
  }
}

template <class T, int kLanes>
__global__ void __launch_bounds__(kSmallBlock<kLanes>, kSmallBlocks<T, kLanes>)
    sample_kernel(const Sample args) {
  using Team = TeamOf<kLanes>;
  const LogitRows& in = args.in;
  for_rows<Team>(in.num_rows, [&](int64_t r) {
    const Drawing<Acc<T>> out{args, r};
    if (in.mask && !in.mask[r]) return out.template leave_out<Team>();
    const double temperature = temperature_of<Acc<T>>(in, r, true);
    const Noise noise{args, r};
    check<Team>(noise);
    Segments<kLanes, T> row(in, r, temperature);
    row.sum();
    const RowState state = finish(row.all());
    if (args.method == kWithoutReplacement) Team::sync();  // all have read what draws then change
    if (!(state.pivot - state.pivot == 0 && state.log_s0 - state.log_s0 == 0))
      refuse(Refusal::row_values, r, 0);
    draw<Team>(row, noise, state, temperature, out);
    Team::sync();
#pragma unroll 1
    for (int64_t s = Team::rank(); s < args.num_samples; s += Team::size())
      out.put(s, token_logp(row.value_of(args.tokens_out[out.place(s)]), state, temperature));
    if (Team::rank() == 0) out.put(state);
  });
}

}  // namespace
}  // namespace cuda

using namespace cuda;

const char* sample_cuda(const Sample& args, void* stream) {
  const Geometry g = in_small_blocks(geometry(args.in.num_rows, args.in.rows.vocab, args.in.dtype));
  return with_type(args.in.dtype, [&]<class T>() {
    return with_lanes<T>(g.lanes, [&]<int kLanes>() {
      return launch(sample_kernel<T, kLanes>, g, args, stream);
    });
  });
}

}  // namespace pgest
