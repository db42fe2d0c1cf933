// How many n-grams a hypothesis shares with its references, after each of its tokens.
#pragma once

#include <array>

#include "positions.h"

namespace pgest::text {

constexpr int kMostOrders = 16;
using Counts = std::array<int64_t, kMostOrders>;  // [n - 1]: of n-grams

// The n-grams of n tokens that a sequence has.
inline int64_t ngrams(int64_t size, int n) { return std::max<int64_t>(size - n + 1, 0); }

// The n-gram that ends at the hypothesis' token i ends, in the references, at the places
//
//     E_n(i) = (E_{n-1}(i - 1) << 1) & E_1(i),    E_1(i) = places of token i,
//
// so that no n-gram is ever compared or hashed. The lowest place names it, and under that name stands
// how often it may still match: in all as often as the references have it.
class NgramMatches {
 public:
  // `words` words of the sets from `word` on; `count(set)` is how often an n-gram may match. Calls
  // `each(i, matches)` after token i. `orders` is at most kMostOrders.
  template <class Count, class Each>
  void run(const Positions& positions, int64_t word, int64_t words, Tokens hypothesis, int orders, Count count,
           Each each) {
    switch (words) {  // loops of known length, up to 511 tokens
      case 1: return run_words<1>(positions, word, words, hypothesis, orders, count, each);
      case 2: return run_words<2>(positions, word, words, hypothesis, orders, count, each);
      case 3: return run_words<3>(positions, word, words, hypothesis, orders, count, each);
      case 4: return run_words<4>(positions, word, words, hypothesis, orders, count, each);
      case 5: return run_words<5>(positions, word, words, hypothesis, orders, count, each);
      case 6: return run_words<6>(positions, word, words, hypothesis, orders, count, each);
      case 7: return run_words<7>(positions, word, words, hypothesis, orders, count, each);
      case 8: return run_words<8>(positions, word, words, hypothesis, orders, count, each);
    }
    run_words<0>(positions, word, words, hypothesis, orders, count, each);
  }

  // For one reference: what it has, it may match.
  template <class Each>
  void run(const Positions& positions, const Place& place, Tokens hypothesis, int orders, Each each) {
    const auto count = [n = place.words](const uint64_t* set) {
      int64_t bits = 0;
      for (int64_t w = 0; w < n; ++w) bits += std::popcount(set[w]);
      return bits;
    };
    run(positions, place.word, place.words, hypothesis, orders, count, each);
  }

 private:
  // How often an n-gram may still match. It is counted when it is met again: most are not.
  static constexpr uint32_t kUnmet = ~0u, kMetOnce = ~1u;

  template <int kWords, class Count, class Each>
  void run_words(const Positions& positions, int64_t word, int64_t any_words, Tokens hypothesis, int orders,
                 Count count, Each each) {
    const int64_t words = kWords ? kWords : any_words;
    ends_.resize(orders * words);
    left_.assign(orders * words * 64, kUnmet);
    Counts matches{};
    int found = 0;  // the longest n-gram that ended at the token before and is one of the references'
    for (size_t i = 0; i < hypothesis.size(); ++i) {
      const uint64_t* places = positions.find(hypothesis[i]) + word;
      int longest = 0;
      // From the longest down, each reads what its shorter one left at the token before.
      for (int n = std::min(found + 1, orders); n >= 1; --n) {
        uint64_t* ends = ends_.data() + (n - 1) * words;
        const int64_t lowest = n == 1 ? copy<kWords>(ends, places, words)
                                      : follow<kWords>(ends, ends - words, places, words);
        if (lowest < 0) continue;
        longest = std::max(longest, n);
        uint32_t& left = left_[(n - 1) * words * 64 + lowest];
        if (left == kUnmet) {
          left = kMetOnce;
        } else {
          if (left == kMetOnce) left = uint32_t(count(ends)) - 1;
          if (left == 0) continue;
          --left;
        }
        ++matches[n - 1];
      }
      found = longest;
      each(int64_t(i), matches);
    }
  }

  // Both return the lowest bit of the new set, -1 for an empty one.
  template <int kWords>
  static int64_t copy(uint64_t* to, const uint64_t* from, int64_t words) {
    int64_t lowest = -1;
    for (int64_t w = (kWords ? kWords : words) - 1; w >= 0; --w) {
      to[w] = from[w];
      lowest = from[w] ? w * 64 + std::countr_zero(from[w]) : lowest;
    }
    return lowest;
  }
  template <int kWords>
  static int64_t follow(uint64_t* to, const uint64_t* shorter, const uint64_t* places, int64_t words) {
    int64_t lowest = -1;
    for (int64_t w = (kWords ? kWords : words) - 1; w >= 0; --w) {
      const uint64_t carry = w ? shorter[w - 1] >> 63 : 0;
      const uint64_t set = (shorter[w] << 1 | carry) & places[w];
      to[w] = set;
      lowest = set ? w * 64 + std::countr_zero(set) : lowest;
    }
    return lowest;
  }

  std::vector<uint64_t> ends_;
  std::vector<uint32_t> left_;
};

}  // namespace pgest::text
