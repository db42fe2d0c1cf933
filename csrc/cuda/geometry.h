// How many threads share a row, and how rows are laid out over blocks: a pure function of sizes, so
// that it is tested without a GPU. It depends on the row alone, never on the number of rows: a row's
// result is the same to the bit in every batch.
#pragma once

#include <cstdint>

#include "../kernels/common.h"

namespace pgest {

// Elements that a thread reads at a time: one load of 16 bytes in a half type, several in others.
constexpr int kChunk = 8;

// Threads of a row: so many lanes of a warp, or a whole block.
constexpr int kWholeBlock = 0;

struct Geometry {
  int64_t blocks = 0;  // on grid.x
  int threads = 0;     // of a block
  int lanes = 0;       // 1, 8, 32 or kWholeBlock
};

constexpr int64_t kMaxBlocks = (int64_t{1} << 31) - 1;
constexpr int kPackedThreads = 128;  // of a block whose rows share it
constexpr int kMaxThreads = 512;     // of a block that shares a row

constexpr int lanes_for(int64_t row_elements) {
  return row_elements <= 2 * kChunk ? 1 : row_elements <= 16 * kChunk ? 8 : row_elements <= 2048 ? 32 : 0;
}

// The shortest row long enough for so many lanes.
constexpr int64_t long_enough(int lanes) {
  return lanes == 1 ? 1 : lanes == 8 ? 2 * kChunk + 1 : 16 * kChunk + 1;
}

// A thread has at least 4 chunks of its row where that is long: fewer are all start and end.
constexpr int threads_for(int64_t row_elements) {
  if (lanes_for(row_elements) != kWholeBlock) return kPackedThreads;
  return row_elements < 8192 ? 128 : row_elements < 16384 ? 256 : kMaxThreads;
}

// Rows of float64 are there for tests and for checks of gradients: on a device they have one kind of team, a
// warp, whatever their length. The emulator has them in all, since tests are most exact in float64.
#if defined(PGEST_EMULATE)
constexpr bool one_team(DType) { return false; }
#else
constexpr bool one_team(DType dtype) { return dtype == DType::f64; }
#endif

// Of a kernel whose teams have at least so many lanes. Blocks beyond the largest grid are made up for by a
// stride: see for_rows.
constexpr Geometry geometry(int64_t num_rows, int64_t row_elements, DType dtype, int fewest_lanes = 1) {
  if (row_elements < long_enough(fewest_lanes)) row_elements = long_enough(fewest_lanes);
  if (one_team(dtype)) row_elements = long_enough(32);
  Geometry g{0, threads_for(row_elements), lanes_for(row_elements)};
  const int64_t rows_a_block = g.lanes == kWholeBlock ? 1 : g.threads / g.lanes;
  const int64_t blocks = num_rows / rows_a_block + (num_rows % rows_a_block != 0);
  g.blocks = blocks < kMaxBlocks ? blocks : kMaxBlocks;
  return g;
}

}  // namespace pgest
