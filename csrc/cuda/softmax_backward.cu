// The gradient of softmax((z + g) / T) on CUDA, from what the forward returned, or from what it was given.

#include "chosen.h"
#include "gumbel.h"

namespace pgest {
namespace cuda {
namespace {

// Of one row, which is `vocab` long.
template <class T>
struct Gradients {
  const T* upstream;
  T* out;
  double* temperature;  // null where it is not asked for

  __device__ Gradients(const SoftmaxBackward& args, int64_t r)
      : upstream(static_cast<const T*>(args.grad) + r * args.in.rows.vocab),
        out(static_cast<T*>(args.grad_logits) + r * args.in.rows.vocab),
        temperature(args.grad_temperature ? args.grad_temperature + r : nullptr) {}

  // A row without a gradient is 0 whatever it holds, so that a loss may mask it afterwards: no 0 * NaN.
  template <class Team>
  __device__ void silence(int64_t vocab) const {
    fill_zero<Team>(out, vocab);
    if (temperature && Team::rank() == 0) *temperature = 0;
  }
};

// J g of elements of a row, and the covariance of g and log q that the temperature's gradient is.
template <class A>
struct Product {
  JacobianRow<A> jacobian;
  A center;  // E[log q]
  bool by_temperature;
  A covariance = 0;

  __device__ Product(double mean_grad, double mean_log, double temperature, bool by_temperature)
      : jacobian(softmax_row<A>(mean_grad, temperature)),
        center(static_cast<A>(mean_log)),
        by_temperature(by_temperature) {}

  __device__ __forceinline__ A of(A q, A grad) {
    const A product = jacobian_of(q, grad, jacobian);
    if (by_temperature) covariance += product * (log_or_zero(q) - center);
    return product;
  }

  template <class Team, class T>
  __device__ void finish(const Gradients<T>& gradients) const {
    if (!by_temperature) return;
    const double sum = sum_of<Team>(static_cast<double>(covariance));
    if (Team::rank() == 0) *gradients.temperature = -sum;
  }
};

template <class T, int kLanes>
__global__ void __launch_bounds__(TeamOf<kLanes>::kThreads)
    from_soft_kernel(const SoftmaxBackward args) {
  using A = Acc<T>;
  using Team = TeamOf<kLanes>;
  const int64_t vocab = args.in.rows.vocab;
  for_rows<Team>(args.in.num_rows, [&](int64_t r) {
    const T* soft = static_cast<const T*>(args.soft) + r * vocab;
    const Gradients<T> gradients(args, r);
    const bool by_temperature = gradients.temperature;
    SoftMoments<A> mine;
    int loud = 0;
    for_even_chunks<Team>(vocab, [&](int64_t at, int n) {
      A q[kChunk], grad[kChunk];
      load(soft + at, n, q, A(0));
      load(gradients.upstream + at, n, grad, A(0));
#pragma unroll
      for (int j = 0; j < kChunk; ++j) {
        loud |= grad[j] != 0;
        mine.add(q[j], grad[j], by_temperature);
      }
    });
    if (largest_of<Team>(loud) == 0) return gradients.template silence<Team>(vocab);
    const double temperature = args.in.temperature ? args.in.temperature[r] : 1.0;
    const double mean_log = by_temperature ? mine.template mean_log<Team>() : 0;
    Product<A> product(mine.template mean_grad<Team>(), mean_log, temperature, by_temperature);
    for_even_chunks<Team>(vocab, [&](int64_t at, int n) {
      A q[kChunk], grad[kChunk];
      load(soft + at, n, q, A(0));
      load(gradients.upstream + at, n, grad, A(0));
#pragma unroll
      for (int j = 0; j < kChunk; ++j) grad[j] = product.of(q[j], grad[j]);
      store(gradients.out + at, n, grad);
    });
    product.template finish<Team>(gradients);
  });
}

template <class T, int kLanes>
__global__ void __launch_bounds__(kSmallBlock<kLanes>, kSmallBlocks<T, kLanes>)
    from_noise_kernel(const SoftmaxBackward args) {
  using A = Acc<T>;
  using Team = TeamOf<kLanes>;
  constexpr int n = NoisyRow<T, kLanes>::kSize;
  const int64_t vocab = args.in.rows.vocab;
  HeldNoise<kLanes, A> held;
  for_rows<Team>(args.in.num_rows, [&](int64_t r) {
    const Gradients<T> gradients(args, r);
    const bool by_temperature = gradients.temperature;
    const double temperature = args.in.temperature ? args.in.temperature[r] : 1.0;
    const double bits = kLog2E / temperature;
    const NoisyRow<T, kLanes> row(args.in, r);
    const auto scale = static_cast<A>(bits);
    NoisySums<A, Sums::by_bits> mine;
    int loud = 0;
    row.first(held, [&](int64_t first, const A* z, const A* g) {
      A grad[n];
      load_spread<kLanes>(gradients.upstream, first, vocab, grad, A(0));
#pragma unroll
      for (int j = 0; j < n; ++j) loud |= grad[j] != 0;
      mine.template add<n>(z, g, scale, grad, by_temperature);
    });
    if (largest_of<Team>(loud) == 0) return gradients.template silence<Team>(vocab);
    const SoftTotal total = mine.template merged<Team>(bits);
    const NoisySoftmax<A> softmax = mine.template softmax<Team>(total, bits);
    const double mean_log = by_temperature ? total.mean_log() : 0;
    Product<A> product(total.mean_grad(), mean_log, temperature, by_temperature);
    // A pass more makes the mean where it is only known what counts after the first.
    SoftMoments<A> moments;
#pragma unroll 1
    for (int passes = total.has_mean() ? 1 : 2; passes > 0; --passes) {
      row.again(held, [&](int64_t first, const A* z, const A* g) {
        A grad[n];
        T y[n];
        load_spread<kLanes>(gradients.upstream, first, vocab, grad, A(0));
#pragma unroll
        for (int j = 0; j < n; ++j) {
          const A q = softmax(z[j], g[j]);
          if (passes > 1) moments.add(q, grad[j], false);
          round_to(y[j], product.of(q, grad[j]));
        }
        store_spread<kLanes>(gradients.out, first, vocab, y);
      });
      if (passes > 1) product = {moments.template mean_grad<Team>(), mean_log, temperature, by_temperature};
    }
    product.template finish<Team>(gradients);
  });
}

}  // namespace
}  // namespace cuda

const char* softmax_backward_cuda(const SoftmaxBackward& args, void* stream) {
  const Geometry g = geometry(args.in.num_rows, args.in.rows.vocab, args.in.dtype);
  return cuda::with_type(args.in.dtype, [&]<class T>() {
    return cuda::with_lanes<T>(g.lanes, [&]<int kLanes>() {
      return args.soft ? cuda::launch(cuda::from_soft_kernel<T, kLanes>, g, args, stream)
                       : cuda::launch(cuda::from_noise_kernel<T, kLanes>, cuda::in_small_blocks(g), args, stream);
    });
  });
}

}  // namespace pgest
