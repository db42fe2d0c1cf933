// Python's lists, strings and arrays as sequences of tokens.
#pragma once

#include <pybind11/pybind11.h>

#include <string>

#include "vocabulary.h"

namespace pgest::text {

// What one item of a batch is, and what its tokens are.
enum class Unit {
  tokens,      // a list of anything hashable: whole numbers are themselves, all else is numbered by a vocabulary
  characters,  // a string: its code points
  visible,     // a string: its code points without white space
  words,       // a string: what white space separates
  chrf_words,  // the same with punctuation at an end of a word apart, as chrF++ has it
  latin_words, // a string: what is made of a-z and 0-9, as rouge-score has it
};

// Words and whatever else is no whole number are numbered by `vocabulary`, which grows. `name` is the
// argument, for the errors.
Sequences encode(const std::string& name, pybind11::handle items, Unit unit, Vocabulary& vocabulary);

// The same for items that are one sequence each, or a list of them. starts[g] is where item g's begin.
Sequences encode_groups(const std::string& name, pybind11::handle items, Unit unit, Vocabulary& vocabulary,
                        std::vector<int64_t>& starts);

// How many characters that count each piece of an item ends after; a string's pieces are its characters.
Sequences piece_ends(const std::string& name, pybind11::handle items, bool whitespace);

}  // namespace pgest::text
