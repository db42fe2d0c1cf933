// Where each token stands in the references, as sets of bits: what every metric here is made of.
#pragma once

#include <bit>

#include "sequences.h"

namespace pgest::text {

// A reference's place in the sets: bit k of its words is its token k. The bit after its last token is
// never set, so that an n-gram shifted past the end meets nothing of the next reference.
struct Place {
  int64_t size = 0;
  int64_t word = 0;
  int64_t words = 0;
};

// The sets of the references of one group. Built once, read by each of its hypotheses.
class Positions {
 public:
  void build(const Sequences& references, int64_t first, int64_t last) {
    places_.clear();
    words_ = 0;
    int64_t tokens = 0;
    for (int64_t r = first; r < last; ++r) {
      const int64_t size = references.length(r), words = size / 64 + 1;
      places_.push_back({size, words_, words});
      words_ += words;
      tokens += size;
    }
    clear(tokens);
    rows_of_.clear();
    for (int64_t r = first; r < last; ++r)
      for (const Token token : references[r]) rows_of_.push_back(row(token));
    sets_.assign(rows_ * words_, 0);  // one for each different token, and the empty one
    const uint32_t* row = rows_of_.data();
    for (const Place& place : places_)
      for (int64_t i = 0; i < place.size; ++i) sets_[*row++ * words_ + place.word + i / 64] |= uint64_t(1) << (i % 64);
  }

  const std::vector<Place>& places() const { return places_; }
  int64_t words() const { return words_; }

  // The set of a token's places, words() long: the empty one for a token that no reference has.
  const uint64_t* find(Token token) const {
    size_t i = slot(token);
    // Whether a token is known is anyone's guess, so nothing branches on it; that another one has its slot
    // is rare.
    while (slots_[i].build == build_ && slots_[i].token != token) [[unlikely]] i = (i + 1) & mask_;
    const uint32_t known = -uint32_t(slots_[i].build == build_);
    return sets_.data() + (slots_[i].row & known) * words_;
  }

 private:
  // A slot of another build is free: nothing has to be wiped between groups.
  struct Slot {
    Token token = 0;
    uint32_t build = 0;
    uint32_t row = 0;
  };

  size_t slot(Token token) const { return size_t(uint64_t(token) * 0x9E3779B97F4A7C15u >> shift_); }

  void clear(int64_t tokens) {
    const size_t wanted = std::bit_ceil(size_t(std::max<int64_t>((tokens < 256 ? 4 : 2) * tokens, 16)));
    if (wanted > slots_.size() || ++build_ == 0) {
      slots_.assign(std::max(wanted, slots_.size()), Slot{});
      build_ = 1;
    }
    // The fewest slots that hold them: what is read often stays close together.
    mask_ = wanted - 1;
    shift_ = 64 - std::countr_zero(wanted);
    rows_ = 1;
  }

  // The row of a token of the references, a new one when it is first met; row 0 stays empty.
  uint32_t row(Token token) {
    size_t i = slot(token);
    for (; slots_[i].build == build_; i = (i + 1) & mask_)
      if (slots_[i].token == token) return slots_[i].row;
    slots_[i] = {token, build_, rows_};
    return rows_++;
  }

  std::vector<Place> places_;
  std::vector<Slot> slots_;
  std::vector<uint32_t> rows_of_;  // of each token of the references, end to end
  std::vector<uint64_t> sets_;
  int64_t words_ = 0;
  size_t mask_ = 0;
  int shift_ = 0;
  uint32_t build_ = 0, rows_ = 1;
};

}  // namespace pgest::text
