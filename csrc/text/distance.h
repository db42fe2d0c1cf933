// Edit distance and longest common subsequence, 64 positions of the reference at a time.
#pragma once

#include "positions.h"

namespace pgest::text {

// Levenshtein's distance by the bits of differences between neighbouring cells of its table: Myers 1999,
// in the form and blocks of Hyyrö 2003. Calls `each(i, distance)` after token i of the hypothesis.
class EditDistance {
 public:
  template <class Each>
  int64_t run(const Positions& positions, const Place& place, Tokens hypothesis, Each each) {
    const int64_t words = (place.size + 63) / 64;
    if (words == 0) {
      for (size_t i = 0; i < hypothesis.size(); ++i) each(int64_t(i), int64_t(i) + 1);
      return int64_t(hypothesis.size());
    }
    up_.assign(words, ~uint64_t(0));
    down_.assign(words, 0);
    const uint64_t last = uint64_t(1) << ((place.size - 1) % 64);
    int64_t distance = place.size;
    for (size_t i = 0; i < hypothesis.size(); ++i) {
      const uint64_t* places = positions.find(hypothesis[i]) + place.word;
      // The difference along the row that enters a word from the one before: +1 at the top.
      uint64_t up_in = 1, down_in = 0;
      for (int64_t w = 0; w < words; ++w) {
        const uint64_t up = up_[w], down = down_[w];
        const uint64_t same = places[w] | down_in;
        const uint64_t zero = (((same & up) + up) ^ up) | same | down;
        uint64_t right = down | ~(zero | up), left = zero & up;
        if (w == words - 1) distance += int64_t((right & last) != 0) - int64_t((left & last) != 0);
        const uint64_t right_out = right >> 63, left_out = left >> 63;
        right = right << 1 | up_in;
        left = left << 1 | down_in;
        up_[w] = left | ~(zero | right);
        down_[w] = right & zero;
        up_in = right_out;
        down_in = left_out;
      }
      each(int64_t(i), distance);
    }
    return distance;
  }

 private:
  std::vector<uint64_t> up_, down_;
};

// The length of the longest common subsequence: Hyyrö 2004. Calls `each(i, length)` after token i.
class CommonSubsequence {
 public:
  template <class Each>
  int64_t run(const Positions& positions, const Place& place, Tokens hypothesis, Each each) {
    const int64_t words = (place.size + 63) / 64;
    open_.assign(words, ~uint64_t(0));
    int64_t length = 0;
    for (size_t i = 0; i < hypothesis.size(); ++i) {
      const uint64_t* places = positions.find(hypothesis[i]) + place.word;
      uint64_t carry = 0;
      int64_t closed = 0;
      for (int64_t w = 0; w < words; ++w) {
        const uint64_t open = open_[w], hit = open & places[w];
        const uint64_t sum = open + hit, with_carry = sum + carry;
        carry = uint64_t(sum < open) | uint64_t(with_carry < sum);
        open_[w] = with_carry | (open - hit);
        // Each token closes at most one place: how many words changed in their number of closed ones.
        closed += std::popcount(~open_[w]) - std::popcount(~open);
      }
      length += closed;
      each(int64_t(i), length);
    }
    return length;
  }

 private:
  std::vector<uint64_t> open_;
};

}  // namespace pgest::text
