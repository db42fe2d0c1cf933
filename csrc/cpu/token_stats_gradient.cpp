// Statistics and their gradient in one go: the forward and the backward take turns over so few rows that the
// second finds them in the processor's own cache.

#include <algorithm>

#include "../kernels/token_stats.h"

namespace pgest {
namespace {

// Elements that are read in a turn: in float32 a quarter of a common second-level cache, which also has to
// hold the gradient.
constexpr int64_t kTurn = 32768;

int64_t rows_of_turn(const TokenStatsInput& in) {
  const int64_t rows_read = 1 + (in.reference_logits != nullptr) + (in.values && !in.value_tokens);
  return std::max<int64_t>(1, kTurn / (in.rows.vocab * rows_read));
}

}  // namespace

Refusal token_stats_gradient_cpu(const TokenStatsGradient& args, int64_t begin, int64_t end) {
  const auto& [forward, backward] = args;
  const auto run_forward = forward.plain() ? token_stats_forward_cpu : token_stats_full_forward_cpu;
  const auto run_backward = backward.plain() ? token_stats_backward_cpu : token_stats_full_backward_cpu;
  const int64_t rows = rows_of_turn(forward.in);
  for (int64_t at = begin; at < end; at += rows) {
    const int64_t stop = std::min(at + rows, end);
    Refusal refusal = run_forward(forward, at, stop);
    if (refusal.kind == Refusal::none) refusal = run_backward(backward, at, stop);
    if (refusal.kind != Refusal::none) return refusal;
  }
  return {};
}

}  // namespace pgest
