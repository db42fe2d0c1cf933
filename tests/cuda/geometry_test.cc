// Launch geometry is a pure function: every row has its team, once, whatever the sizes.

#include "../../csrc/cuda/geometry.h"

#include <cstdio>
#include <cstdlib>
#include <initializer_list>

#include "../../csrc/kernels/bits.h"
#include "../../csrc/kernels/relaxed.h"
#include "../../csrc/kernels/row_threshold.h"
#include "../../csrc/kernels/sample.h"
#include "../../csrc/kernels/token_stats.h"

using namespace pgest;

namespace {

// cudaLaunchKernel takes 4 KiB of arguments.
static_assert(sizeof(TokenStatsForward) <= 4096 && sizeof(TokenStatsBackward) <= 4096);
static_assert(sizeof(Sample) <= 4096 && sizeof(SoftmaxBackward) <= 4096);
static_assert(sizeof(BitStatsBackward) <= 4096 && sizeof(RowThreshold) <= 4096);

void check(bool right, const char* what, int64_t rows, int64_t vocab) {
  if (right) return;
  std::fprintf(stderr, "%s: %lld rows of %lld\n", what, (long long)rows, (long long)vocab);
  std::exit(1);
}

int64_t rows_a_block(const Geometry& g) { return g.lanes == kWholeBlock ? 1 : g.threads / g.lanes; }

void check_sizes(int64_t rows, int64_t vocab, DType dtype, int fewest_lanes) {
  const Geometry g = geometry(rows, vocab, dtype, fewest_lanes);
  check(g.blocks >= 0 && g.blocks <= kMaxBlocks, "blocks out of the grid's range", rows, vocab);
  check(g.threads >= 32 && g.threads <= kMaxThreads && g.threads % 32 == 0, "threads", rows, vocab);
  check((g.threads & (g.threads - 1)) == 0, "threads are no power of two", rows, vocab);
  check(g.lanes == kWholeBlock || 32 % g.lanes == 0, "lanes do not divide a warp", rows, vocab);
  check((rows == 0) == (g.blocks == 0), "blocks without rows", rows, vocab);
  const bool all = g.blocks == kMaxBlocks || g.blocks > (rows - 1) / rows_a_block(g);
  check(rows == 0 || all, "rows without a block", rows, vocab);
  const bool none_idle = g.blocks <= 1 || (g.blocks - 1) <= (rows - 1) / rows_a_block(g);
  check(none_idle, "blocks without rows", rows, vocab);
  const int lanes = g.lanes == kWholeBlock ? g.threads : g.lanes;
  check(lanes >= fewest_lanes, "fewer lanes than the kernel has", rows, vocab);
  check(dtype != DType::f64 || g.lanes == 32, "float64 has warps alone", rows, vocab);
  const Geometry one = geometry(1, vocab, dtype, fewest_lanes);
  check(one.threads == g.threads && one.lanes == g.lanes, "a row's team depends on the batch", rows, vocab);
}

void check_sizes(int64_t rows, int64_t vocab) {
  for (const DType dtype : {DType::f64, DType::f32, DType::bf16, DType::f16})
    for (const int fewest_lanes : {1, 8, 32}) check_sizes(rows, vocab, dtype, fewest_lanes);
}

}  // namespace

int main() {
  const int64_t big = int64_t{1} << 40;
  const int64_t counts[] = {0, 1, 2, 3, 15, 16, 17, 127, 128, 129, 8192, 1000003, kMaxBlocks, kMaxBlocks + 1, big};
  const int64_t sizes[] = {1, 2, 7, 8, 9, 16, 17, 127, 128, 129, 1000, 2048, 2049, 8191, 8192, 16384, 50257, 128256, big};
  for (const int64_t rows : counts)
    for (const int64_t vocab : sizes) check_sizes(rows, vocab);
  for (int64_t vocab = 1; vocab < 5000; ++vocab) check_sizes(97, vocab);
  std::puts("geometry holds");
}
