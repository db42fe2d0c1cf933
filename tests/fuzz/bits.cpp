// bit_stats and sample_bits: the same numbers as in f64, and bits that are 0 or 1.

#include "../../csrc/kernels/bits.h"

#include <algorithm>
#include <vector>

#include "fuzz.h"

namespace fuzz {
namespace {

using namespace pgest;

// Logits and bits of a case in its own dtype and in f64.
struct Bits {
  BitRows in, exact;
  Storage logits, exact_logits, bits, exact_bits;
  std::vector<unsigned char> bytes;
};

Bits bits(Random& random) {
  Bits b;
  const DType dtype = random.pick({DType::f64, DType::f32, DType::bf16, DType::f16});
  b.in = {dtype, random.integer(0, 6), random.pick<int64_t>({1, 2, 7, 255, 256, 257, 700}),
          random.integer(1, 4), random.chance(0.5), random.chance(0.5)};
  const int64_t numel = b.in.num_rows * b.in.width, count = numel * b.in.num_samples;
  b.logits = Storage(dtype, numel);
  b.exact_logits = Storage(DType::f64, numel);
  b.bits = Storage(dtype, count);
  b.exact_bits = Storage(DType::f64, count);
  b.bytes.resize(count);
  const double scale = random.pick({0.1, 3.0, 50.0});
  for (int64_t i = 0; i < numel; ++i) {
    const double odd = random.pick({kInf, -kInf, 0.0, 6e4});
    b.logits.set(i, random.chance(0.02) ? odd : scale * random.normal());
    b.exact_logits.set(i, b.logits.get(i));
  }
  for (int64_t i = 0; i < count; ++i) {
    b.bytes[i] = random.chance(0.5);
    b.bits.set(i, b.bytes[i]);
    b.exact_bits.set(i, b.bytes[i]);
  }
  b.in.logits = b.logits.data();
  b.in.bits = b.in.bytes ? static_cast<const void*>(b.bytes.data()) : b.bits.data();
  b.exact = b.in;
  b.exact.dtype = DType::f64;
  b.exact.logits = b.exact_logits.data();
  b.exact.bits = b.in.bytes ? static_cast<const void*>(b.bytes.data()) : b.exact_bits.data();
  return b;
}

// logp, entropy and the gradient of a weighted sum of them, with everything in one dtype.
struct Results {
  Storage logp, entropy, grad;

  Results(const BitRows& in, const std::vector<double>& weights)
      : logp(statistics(in.dtype), in.num_samples * per_sample(in)),
        entropy(statistics(in.dtype), per_sample(in)),
        grad(in.dtype, in.num_rows * in.width) {
    const Refusal refusal = bit_stats_cpu({in, logp.data(), entropy.data()}, 0, in.num_rows);
    expect(refusal.kind == Refusal::none, "a regular case was refused");
    Storage by_logp(statistics(in.dtype), in.num_samples * per_sample(in));
    Storage by_entropy(statistics(in.dtype), per_sample(in));
    for (int64_t i = 0; i < in.num_samples * per_sample(in); ++i) by_logp.set(i, weights[i]);
    for (int64_t i = 0; i < per_sample(in); ++i) by_entropy.set(i, weights[i] / 2);
    bit_stats_backward_cpu({in, by_logp.data(), by_entropy.data(), grad.data()}, 0, in.num_rows);
  }
  static int64_t per_sample(const BitRows& in) { return in.num_rows * (in.joint ? 1 : in.width); }
};

void draw(Random& random, const Bits& b) {
  SampleBits args{b.in.dtype, b.in.num_rows * b.in.width, 2 * random.integer(1, 2)};
  args.antithetic = random.chance(0.5);
  args.bytes = random.chance(0.5);
  args.logits = b.logits.data();
  const int64_t seed = random.integer(0, 1 << 30), count = args.numel * args.num_samples;
  Storage uniforms(statistics(b.in.dtype), args.antithetic ? count / 2 : count);
  for (int64_t i = 0; i < (args.antithetic ? count / 2 : count); ++i)
    uniforms.set(i, random.chance(0.1) ? 0 : std::min(random.pick({1.0, random.uniform(), random.uniform()}), 1 - 0x1p-24));
  args.seed = &seed;
  if (random.chance(0.5)) {
    args.seed = nullptr;
    args.uniforms = uniforms.data();
  }
  std::vector<unsigned char> bytes(count);
  Storage floats(b.in.dtype, count);
  args.out = args.bytes ? static_cast<void*>(bytes.data()) : floats.data();
  const int64_t blocks = (args.numel + kBitBlock - 1) / kBitBlock;
  expect(sample_bits_cpu(args, 0, blocks).kind == Refusal::none, "a regular case was refused");
  for (int64_t i = 0; i < count; ++i) {
    const double bit = args.bytes ? bytes[i] : floats.get(i), z = b.logits.get(i % args.numel);
    expect(bit == 0 || bit == 1, "a bit that is neither 0 nor 1");
    if (std::isinf(z)) expect(bit == (z > 0), "a certain bit came out otherwise");
  }
}

}  // namespace

void bits_of_rows(Random& random) {
  const Bits b = bits(random);
  std::vector<double> weights;
  for (int64_t i = 0; i < b.in.num_samples * b.in.num_rows * b.in.width; ++i)
    weights.push_back(static_cast<float>(random.normal()));
  const Results ours(b.in, weights), exact(b.exact, weights);
  const double eps = b.in.dtype == DType::f64 ? 1e-11 : 2e-5;
  const double half = b.in.dtype == DType::bf16 ? 1e-2 : b.in.dtype == DType::f16 ? 2e-3 : eps;
  for (int64_t i = 0; i < b.in.num_samples * Results::per_sample(b.in); ++i) {
    const double x = exact.logp.get(i);
    expect_close(ours.logp.get(i), x, eps * (1 + std::abs(x)), "logp");
    expect(!(ours.logp.get(i) > 0), "a log-probability above 0");
  }
  for (int64_t i = 0; i < Results::per_sample(b.in); ++i)
    expect_close(ours.entropy.get(i), exact.entropy.get(i), eps * (1 + b.in.width), "entropy");
  for (int64_t i = 0; i < b.in.num_rows * b.in.width; ++i)
    expect_close(ours.grad.get(i), exact.grad.get(i), half * (4 + std::abs(exact.grad.get(i))), "gradient");
  draw(random, b);
}

}  // namespace fuzz
