// Numbers for tokens that are none themselves.
#pragma once

#include <pybind11/pybind11.h>

#include <bit>
#include <limits>

#include "sequences.h"

namespace pgest::text {

// Code points of a word, as Python stores the string that it is part of: one, two or four bytes each.
struct Word {
  int kind;
  const void* data;
  Py_ssize_t begin, end;

  Py_UCS4 operator[](Py_ssize_t i) const { return PyUnicode_READ(kind, data, begin + i); }
  Py_ssize_t size() const { return end - begin; }
};

// Each word once, whatever string it came from: words need no Python object to be told apart.
class Words {
 public:
  // The word's number, from 0 on in the order in which they came.
  size_t number(const Word& word) {
    if (2 * (ends_.size() + 1) > slots_.size()) grow();
    uint64_t hash = 0x9E3779B97F4A7C15u;
    for (Py_ssize_t i = 0; i < word.size(); ++i) hash = std::rotl((hash ^ word[i]) * 0xD6E8FEB86659FD93u, 29);
    const size_t mask = slots_.size() - 1;
    size_t i = hash & mask;
    for (; slots_[i].number; i = (i + 1) & mask)
      if (slots_[i].hash == hash && same(slots_[i].number - 1, word)) return slots_[i].number - 1;
    for (Py_ssize_t k = 0; k < word.size(); ++k) spelling_.push_back(word[k]);
    ends_.push_back(spelling_.size());
    slots_[i] = {hash, ends_.size()};
    return ends_.size() - 1;
  }
  size_t size() const { return ends_.size(); }

 private:
  struct Slot {
    uint64_t hash = 0;
    size_t number = 0;  // and one: 0 is free
  };

  bool same(size_t number, const Word& word) const {
    const size_t begin = number ? ends_[number - 1] : 0;
    if (ends_[number] - begin != size_t(word.size())) return false;
    for (Py_ssize_t i = 0; i < word.size(); ++i)
      if (spelling_[begin + i] != word[i]) return false;
    return true;
  }

  void grow() {
    std::vector<Slot> old(std::max<size_t>(1024, 4 * slots_.size()));
    old.swap(slots_);
    for (const Slot& slot : old) {
      size_t i = slot.hash & (slots_.size() - 1);
      while (slot.number && slots_[i].number) i = (i + 1) & (slots_.size() - 1);
      if (slot.number) slots_[i] = slot;
    }
  }

  std::vector<Slot> slots_;
  std::vector<Py_UCS4> spelling_;  // of all words, end to end
  std::vector<size_t> ends_;
};

// What is no whole number is numbered below all numbers that anyone uses, so that neither is taken for the
// other. A batch has words of strings or tokens of lists, never both.
class Vocabulary {
 public:
  static constexpr Token kFirst = std::numeric_limits<Token>::min();
  static constexpr Token kMost = Token(1) << 40;  // more than a memory holds

  Token word(const Word& word) { return kFirst + Token(words_.number(word)); }

  // A hashable object's number; with Python's own error for one that is not hashable.
  Token object(pybind11::handle key) {
    PyObject* found = PyDict_GetItemWithError(objects_.ptr(), key.ptr());
    if (found) return PyLong_AsLongLong(found);
    if (PyErr_Occurred()) throw pybind11::error_already_set();
    const Token next = kFirst + Token(pybind11::len(objects_));
    objects_[key] = pybind11::int_(next);
    return next;
  }

  size_t size() const { return words_.size() + pybind11::len(objects_); }

 private:
  Words words_;
  pybind11::dict objects_;
};

}  // namespace pgest::text
