// Hard samples with a Jacobian, on CUDA: the forward hands the sample on, the backward sees logits and
// upstream gradient twice, for the sums of softmaxes and for the product.

#include "../kernels/relaxed.h"
#include "chosen.h"
#include "one_hot.h"
#include "soft.h"

namespace pgest {
namespace cuda {
namespace {

// The token of a row that must be 0 but for one 1; -1 if it is not.
template <class Team, class T>
__device__ int64_t token_of(const T* row, int64_t vocab) {
  int64_t token = -1;
  int ones = 0, others = 0;
  for_even_chunks<Team>(vocab, [&](int64_t at, int n) {
    Acc<T> x[kChunk];
    load(row + at, n, x, Acc<T>(0));
#pragma unroll
    for (int j = 0; j < kChunk; ++j) {
      if (x[j] == 0) continue;
      if (x[j] == 1) {
        ++ones;
      } else {
        ++others;
      }
      token = at + j;
    }
  });
  const bool fair = sum_of<Team>(static_cast<int64_t>(ones)) == 1 && largest_of<Team>(others) == 0;
  token = largest_of<Team>(token);
  return fair ? token : -1;
}

template <class T, int kLanes>
__global__ void __launch_bounds__(TeamOf<kLanes>::kThreads)
    one_hot_kernel(const StraightThroughForward args) {
  using Team = TeamOf<kLanes>;
  const int64_t vocab = args.in.rows.vocab;
  const auto* given = static_cast<const T*>(args.one_hot);
  for_rows<Team>(args.in.num_rows, [&](int64_t r) {
    temperature_of<Acc<T>>(args.in, r, true);
    const int64_t token = given ? token_of<Team>(given + r * vocab, vocab) : args.tokens[r];
    if (token < 0 || token >= vocab) refuse(given ? Refusal::one_hot : Refusal::token, r, 0);
    write_one<Team>(static_cast<T*>(args.out) + r * vocab, vocab, token, Acc<T>(0));
    if (Team::rank() == 0) args.tokens_out[r] = token;
  });
}

// The rows of one call's logits and gradients.
template <class T>
struct GradedRow {
  const T *logits, *upstream;
  T* out;
  int64_t vocab;

  // Calls f(place, length, logits, gradients) for each of the thread's chunks.
  template <class Team, class F>
  __device__ __forceinline__ void chunks(const F& f) const {
    for_even_chunks<Team>(vocab, [&](int64_t at, int n) {
      Acc<T> x[kChunk], grad[kChunk];
      load(logits + at, n, x, -kInfinity<Acc<T>>);
      load(upstream + at, n, grad, Acc<T>(0));
      f(at, n, x, grad);
    });
  }
};

// E[g] under a softmax; by a pass of its own where it is only known what counts after the first.
template <class Team, class T>
__device__ double mean_grad(const GradedRow<T>& row, const SoftTotal& total, const Softmax<Acc<T>>& softmax) {
  using A = Acc<T>;
  if (total.has_mean()) return total.mean_grad();
  SoftMoments<A> moments;
  row.template chunks<Team>([&](int64_t, int, const A* x, const A* grad) {
#pragma unroll
    for (int j = 0; j < kChunk; ++j) moments.add(softmax(x[j]), grad[j], false);
  });
  return moments.template mean_grad<Team>();
}

// J g, into the gradient's memory.
template <bool kTempered, class Team, class T>
__device__ void jacobian_product(const GradedRow<T>& row, const Softmax<Acc<T>>& q, const Softmax<Acc<T>>& p,
                                 const JacobianRow<Acc<T>>& c, int64_t token) {
  using A = Acc<T>;
  row.template chunks<Team>([&](int64_t at, int n, const A* x, A* grad) {
    const int here = place_in(at, token);
#pragma unroll
    for (int j = 0; j < kChunk; ++j) {
      const A g = grad[j];
      grad[j] = jacobian_of(q(x[j]), g, c);
      if constexpr (kTempered) grad[j] -= tempered_of(p(x[j]), g, c);
      if (j == here) grad[j] += c.rank_one;
    }
    store(row.out + at, n, grad);
  });
}

template <class T, int kLanes, bool kTempered>
__global__ void __launch_bounds__(TeamOf<kLanes>::kThreads)
    jacobian_kernel(const StraightThroughBackward args) {
  using A = Acc<T>;
  using Team = TeamOf<kLanes>;
  const LogitRows& in = args.in;
  const int64_t vocab = in.rows.vocab;
  for_rows<Team>(in.num_rows, [&](int64_t r) {
    const GradedRow<T> row{static_cast<const T*>(in.logits) + in.rows.offset(r),
                           static_cast<const T*>(args.grad) + r * vocab,
                           static_cast<T*>(args.grad_logits) + r * vocab, vocab};
    const double temperature = temperature_of<A>(in, r, true), bits = kLog2E / temperature;
    const int64_t token = args.tokens[r];
    if (token < 0 || token >= vocab) refuse(Refusal::token, r, 0);
    const double chosen = value(row.upstream[token]);
    const auto scale = static_cast<A>(bits), plain_scale = static_cast<A>(kLog2E);
    SoftSums<A, Sums::by_grad> of_q, of_p;
    int loud = 0;
    row.template chunks<Team>([&](int64_t, int, const A* x, const A* grad) {
#pragma unroll
      for (int j = 0; j < kChunk; ++j) loud |= grad[j] != 0;
      of_q.template add<kChunk>(x, scale, grad, false);
      if constexpr (kTempered) of_p.template add<kChunk>(x, plain_scale, grad, false);
    });
    // A row without a gradient is 0 whatever it holds, so that a loss may mask it afterwards: no 0 * NaN.
    if (largest_of<Team>(loud) == 0) return fill_zero<Team>(row.out, vocab);
    const SoftTotal total = of_q.template merged<Team>(0, bits);
    const Softmax<A> q(total, 0, bits);
    const double mean_q = mean_grad<Team>(row, total, q);
    if constexpr (!kTempered) {
      const JacobianRow<A> c = args.jacobian == Jacobian::reinmax
                                   ? reinmax_row<A>(mean_q, mean_q, chosen, temperature)
                                   : softmax_row<A>(mean_q, temperature);
      jacobian_product<false, Team>(row, q, q, c, token);
    } else {
      const SoftTotal plain = of_p.template merged<Team>(0, kLog2E);
      const Softmax<A> p(plain, 0, kLog2E);
      const double mean_p = mean_grad<Team>(row, plain, p);
      jacobian_product<true, Team>(row, q, p, reinmax_row<A>(mean_q, mean_p, chosen, temperature), token);
    }
  });
}

}  // namespace
}  // namespace cuda

const char* straight_through_cuda(const StraightThroughForward& args, void* stream) {
  const Geometry g = geometry(args.in.num_rows, args.in.rows.vocab, args.in.dtype);
  return cuda::with_type(args.in.dtype, [&]<class T>() {
    return cuda::with_lanes<T>(g.lanes, [&]<int kLanes>() {
      return cuda::launch(cuda::one_hot_kernel<T, kLanes>, g, args, stream);
    });
  });
}

// T = 1 in every row needs one softmax, not two.
const char* straight_through_backward_cuda(const StraightThroughBackward& args, void* stream) {
  const Geometry g = geometry(args.in.num_rows, args.in.rows.vocab, args.in.dtype);
  const bool tempered = args.jacobian == Jacobian::reinmax && args.in.temperature;
  return cuda::with_type(args.in.dtype, [&]<class T>() {
    return cuda::with_lanes<T>(g.lanes, [&]<int kLanes>() {
      return tempered ? cuda::launch(cuda::jacobian_kernel<T, kLanes, true>, g, args, stream)
                      : cuda::launch(cuda::jacobian_kernel<T, kLanes, false>, g, args, stream);
    });
  });
}

}  // namespace pgest
