// Python's lists, strings and arrays as sequences of tokens.
#pragma once

#include <pybind11/pybind11.h>

#include <string>

#include "sequences.h"

namespace pgest::text {

// What one item of a batch is, and what its tokens are.
enum class Unit {
  tokens,      // a list of anything hashable: whole numbers are themselves, all else is numbered by a vocabulary
  characters,  // a string: its code points
  visible,     // a string: its code points without white space
  words,       // a string: what white space separates
  chrf_words,  // the same with punctuation at an end of a word apart, as chrF++ has it
};

// Words and whatever else is no whole number are numbered by `vocabulary`, which grows: below all ids that
// anyone uses, so that they are never taken for numbers. `name` is the argument, for the errors.
Sequences encode(const std::string& name, pybind11::handle items, Unit unit, pybind11::dict vocabulary);

// The same for items that are one sequence each, or a list of them. starts[g] is where item g's begin.
Sequences encode_groups(const std::string& name, pybind11::handle items, Unit unit, pybind11::dict vocabulary,
                        std::vector<int64_t>& starts);

// How many characters that count each piece of an item ends after; a string's pieces are its characters.
Sequences piece_ends(const std::string& name, pybind11::handle items, bool whitespace);

}  // namespace pgest::text
