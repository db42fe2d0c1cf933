// Draws of bits on CUDA: a warp takes a block of logits and a few of its samples.

#include "bit_chunk.h"
#include "spread.h"

namespace pgest {
namespace cuda {
namespace {

using DrawSpread = Spread<kWarp>;
constexpr int kDrawn = DrawSpread::kSize;

template <class B>
__device__ __forceinline__ void store_bit(B& out, bool bit) {
  if constexpr (sizeof(B) == 1) {
    out = bit;
  } else {
    round_to(out, bit ? Acc<B>(1) : Acc<B>(0));
  }
}

// What a thread draws of its chunk, for one sample.
template <class A>
struct BitDraws {
  A z[kDrawn], rare[kDrawn];
  bool bits[kDrawn], mirrored[kDrawn];

  template <class T>
  __device__ __forceinline__ bool load(const T* logits, int64_t first, int64_t numel) {
    load_spread<kWarp>(logits, first, numel, z, A(0));
    bool fits = true;
#pragma unroll
    for (int j = 0; j < kDrawn; ++j) {
      fits = fits && z[j] == z[j];
      rare[j] = rare_of(decay(z[j]));
    }
    return fits;
  }

  // 1 where u < p; where it mirrors, where 1 - u <= p, which has the same probability on any grid.
  __device__ __forceinline__ bool from_uniforms(const A* uniforms, int64_t first, int64_t numel) {
    A u[kDrawn];
    load_spread<kWarp>(uniforms, first, numel, u, A(0));
    bool fits = true;
#pragma unroll
    for (int j = 0; j < kDrawn; ++j) {
      const A p = z[j] > 0 ? 1 / (1 + decay(z[j])) : rare[j];
      fits = fits && u[j] >= 0 && u[j] < 1;
      bits[j] = u[j] < p;
      mirrored[j] = 1 - u[j] <= p;
    }
    return fits;
  }

  __device__ __forceinline__ void from_seed(uint64_t seed, int64_t s, int64_t first) {
#pragma unroll
    for (int i = 0; i < kNeighbours; ++i) {
      const Words w = noise_words(seed, s, counter_of(first) + i);
      draw(i, w.a, w.b);
      draw(kNeighbours + i, w.b, w.c);
      draw(2 * kNeighbours + i, w.c, w.d);
      draw(3 * kNeighbours + i, w.d, w.a);
    }
  }
  __device__ __forceinline__ void draw(int j, uint32_t high, uint32_t low) {
    bits[j] = draw_bit(z[j], rare[j], high, low, 0);
    mirrored[j] = draw_bit(z[j], rare[j], high, low, -1);
  }
};

template <class B>
__device__ __forceinline__ void store_bits(const SampleBits& args, int64_t s, int64_t first, const bool* bits) {
  B out[kDrawn];
#pragma unroll
  for (int j = 0; j < kDrawn; ++j) store_bit(out[j], bits[j]);
  store_spread<kWarp>(static_cast<B*>(args.out) + s * args.numel, first, args.numel, out);
}

template <class T, class B>
__device__ __forceinline__ void draw_tile(const SampleBits& args, int64_t draws, const Tile& tile, int64_t first) {
  using A = Acc<T>;
  const auto* uniforms = static_cast<const A*>(args.uniforms);
  const uint64_t seed = args.seed ? static_cast<uint64_t>(*args.seed) : 0;
  BitDraws<A> drawn;
  if (!drawn.load(static_cast<const T*>(args.logits), first, args.numel)) refuse(Refusal::nan, tile.row, 0);
  for (int k = 0; k < tile.count; ++k) {
    const int64_t s = tile.first + k;
    if (!uniforms) {
      drawn.from_seed(seed, s, first);
    } else if (!drawn.from_uniforms(uniforms + s * args.numel, first, args.numel)) {
      refuse(Refusal::noise, tile.row, s);
    }
    store_bits<B>(args, s, first, drawn.bits);
    if (args.antithetic) store_bits<B>(args, draws + s, first, drawn.mirrored);
  }
}

template <class T, class B>
__global__ void __launch_bounds__(kPackedThreads) sample_bits_kernel(const SampleBits args) {
  const int64_t draws = args.antithetic ? args.num_samples / 2 : args.num_samples;
  const int64_t blocks = bit_blocks(args.numel);
  for_rows<TeamOf<kWarp>>(blocks * tiles_of(draws), [&](int64_t item) {
    const Tile tile(item, blocks, draws);
    const int64_t first = DrawSpread::first(tile.row * kWarp + TeamOf<kWarp>::rank());
    if (first < args.numel) draw_tile<T, B>(args, draws, tile, first);
  });
}

}  // namespace
}  // namespace cuda

const char* sample_bits_cuda(const SampleBits& args, void* stream) {
  const int64_t draws = args.antithetic ? args.num_samples / 2 : args.num_samples;
  const Geometry g = geometry(cuda::bit_blocks(args.numel) * cuda::tiles_of(draws), kBitBlock, args.dtype);
  return cuda::with_type(args.dtype, [&]<class T>() {
    return args.bytes ? cuda::launch(cuda::sample_bits_kernel<T, uint8_t>, g, args, stream)
                      : cuda::launch(cuda::sample_bits_kernel<T, T>, g, args, stream);
  });
}

}  // namespace pgest
