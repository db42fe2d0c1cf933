// Sequences of tokens, as every metric reads them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

namespace pgest::text {

using Token = int64_t;
using Tokens = std::span<const Token>;

// Sequences laid end to end: sequence i is ids[offsets[i]] up to ids[offsets[i + 1]].
struct Sequences {
  std::vector<Token> ids;
  std::vector<int64_t> offsets = {0};

  int64_t size() const { return int64_t(offsets.size()) - 1; }
  int64_t length(int64_t i) const { return offsets[i + 1] - offsets[i]; }
  Tokens operator[](int64_t i) const { return {ids.data() + offsets[i], size_t(length(i))}; }
  void end_sequence() { offsets.push_back(int64_t(ids.size())); }

  int64_t longest() const {
    int64_t most = 0;
    for (int64_t i = 0; i < size(); ++i) most = std::max(most, length(i));
    return most;
  }
};

// What is scored: hypotheses of all groups for the first sample, then for the second, and so on. The
// references of group g are references[starts[g]] up to references[starts[g + 1]], at least one.
struct Batch {
  const Sequences& hypotheses;
  const Sequences& references;
  std::span<const int64_t> starts;
  int threads = 1;

  int64_t groups() const { return int64_t(starts.size()) - 1; }
  int64_t samples() const { return groups() ? hypotheses.size() / groups() : 0; }
};

}  // namespace pgest::text
