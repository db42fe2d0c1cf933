#include "encode.h"

namespace pgest::text {
namespace {

namespace py = pybind11;

class Encoder {
 public:
  Encoder(std::string name, Unit unit, Vocabulary& vocabulary)
      : name_(std::move(name)), unit_(unit), vocabulary_(vocabulary) {}

  void sequence(py::handle item) {
    if (unit_ == Unit::tokens) {
      tokens(list(item));
    } else {
      if (!PyUnicode_Check(item.ptr())) fail("a string", item);
      text(item);
    }
    out.end_sequence();
  }

  // One sequence or a list of them; how many.
  int64_t group(py::handle item) {
    const int64_t before = out.size();
    if (unit_ != Unit::tokens && PyUnicode_Check(item.ptr())) {
      sequence(item);
      return 1;
    }
    const py::object members = list(item);
    if (unit_ == Unit::tokens && !holds_sequences(members)) {
      tokens(members);
      out.end_sequence();
      return 1;
    }
    const std::string whole = name_;
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(members.ptr()); ++i) {
      name_ = whole + "[" + std::to_string(i) + "]";
      sequence(py::reinterpret_borrow<py::object>(PySequence_Fast_GET_ITEM(members.ptr(), i)));
    }
    name_ = whole;
    if (out.size() == before) throw py::value_error(where() + " must hold at least one reference, got an empty list");
    return out.size() - before;
  }

  // The ends of pieces: those of a string are its characters.
  void ends(py::handle item, bool whitespace) {
    Token end = 0;
    const auto piece = [&](PyObject* text, bool each) {
      const int kind = PyUnicode_KIND(text);
      const void* data = PyUnicode_DATA(text);
      for (Py_ssize_t i = 0; i < PyUnicode_GET_LENGTH(text); ++i) {
        end += whitespace || !Py_UNICODE_ISSPACE(PyUnicode_READ(kind, data, i));
        if (each) out.ids.push_back(end);
      }
      if (!each) out.ids.push_back(end);
    };
    if (PyUnicode_Check(item.ptr())) {
      piece(item.ptr(), true);
    } else {
      const py::object pieces = list(item);
      for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(pieces.ptr()); ++i) {
        PyObject* text = PySequence_Fast_GET_ITEM(pieces.ptr(), i);
        if (!PyUnicode_Check(text)) fail("a list of strings", item);
        piece(text, false);
      }
    }
    out.end_sequence();
  }

  // The items of a batch; each(item) with the name that says which.
  template <class Each>
  void batch(py::handle items, Each each) {
    const py::object all = list(items);
    const std::string whole = name_;
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(all.ptr()); ++i) {
      fetch(all.ptr(), i);
      index_ = i;
      each(py::reinterpret_borrow<py::object>(PySequence_Fast_GET_ITEM(all.ptr(), i)));
    }
    index_ = -1;
  }

  Sequences out;

 private:
  std::string where() const {
    if (index_ < 0) return name_;
    const size_t bracket = name_.find('[');  // of a member: references[index][member]
    const std::string index = "[" + std::to_string(index_) + "]";
    return bracket == std::string::npos ? name_ + index : name_.substr(0, bracket) + index + name_.substr(bracket);
  }

  // Python's numbers lie anywhere: those of the next sequence are on their way while this one is read.
  static void fetch(PyObject* all, Py_ssize_t i) {
    const Py_ssize_t left = PySequence_Fast_GET_SIZE(all) - i;
    if (left > 3) __builtin_prefetch(PySequence_Fast_GET_ITEM(all, i + 3));
    if (left > 2 && PyList_Check(PySequence_Fast_GET_ITEM(all, i + 2)))
      __builtin_prefetch(PySequence_Fast_ITEMS(PySequence_Fast_GET_ITEM(all, i + 2)));
    if (left < 2 || !PyList_Check(PySequence_Fast_GET_ITEM(all, i + 1))) return;
    PyObject* next = PySequence_Fast_GET_ITEM(all, i + 1);
    const Py_ssize_t few = std::min<Py_ssize_t>(PyList_GET_SIZE(next), 64);
    for (Py_ssize_t k = 0; k < few; ++k) __builtin_prefetch(PyList_GET_ITEM(next, k));
  }

  [[noreturn]] void fail(const char* expected, py::handle got) const {
    throw py::type_error(where() + " must be " + expected + ", got " + std::string(py::str(py::repr(got)[py::slice(0, 80, 1)])));
  }

  // A list or a tuple, of whatever is one or can become one; a string, bytes or a dictionary is none.
  py::object list(py::handle item) const {
    if (PyList_Check(item.ptr()) || PyTuple_Check(item.ptr())) return py::reinterpret_borrow<py::object>(item);
    if (py::hasattr(item, "tolist")) {  // an array or a tensor: its elements as Python's numbers
      py::object made = item.attr("tolist")();
      if (PyList_Check(made.ptr())) return made;
    } else if (PySequence_Check(item.ptr()) && !PyUnicode_Check(item.ptr()) && !PyBytes_Check(item.ptr()) &&
               !PyByteArray_Check(item.ptr())) {
      const auto made = py::reinterpret_steal<py::object>(PySequence_List(item.ptr()));
      if (!made) throw py::error_already_set();
      return made;
    }
    if (index_ < 0) fail("a list", item);
    fail(unit_ == Unit::tokens ? "a list of tokens" : "a string or a list of strings", item);
  }

  static bool holds_sequences(const py::object& members) {
    if (PySequence_Fast_GET_SIZE(members.ptr()) == 0) return false;
    const py::handle first = PySequence_Fast_GET_ITEM(members.ptr(), 0);
    if (PyLong_CheckExact(first.ptr()) || PyUnicode_Check(first.ptr())) return false;
    if (PyList_Check(first.ptr()) || PyTuple_Check(first.ptr())) return true;
    return py::hasattr(first, "tolist") && py::hasattr(first, "__len__") && py::hasattr(first, "ndim") &&
           py::cast<int>(first.attr("ndim")) > 0;
  }

  // Small whole numbers, which most tokens are, where Python keeps them; false for all else.
  static bool small(PyObject* token, Token& value) {
    if (!PyLong_CheckExact(token)) return false;
#if PY_VERSION_HEX >= 0x030C0000
    const auto* number = reinterpret_cast<const PyLongObject*>(token);
    if (!PyUnstable_Long_IsCompact(number)) return false;
    value = PyUnstable_Long_CompactValue(number);
#else
    if (size_t(Py_SIZE(token)) > 1) return false;  // negative ones have a negative size
    value = Py_SIZE(token) ? Token(reinterpret_cast<PyLongObject*>(token)->ob_digit[0]) : 0;
#endif
    return true;
  }

  void tokens(const py::object& members) {
    const Py_ssize_t size = PySequence_Fast_GET_SIZE(members.ptr());
    PyObject* const* items = PySequence_Fast_ITEMS(members.ptr());
    const size_t before = out.ids.size();
    out.ids.resize(before + size);
    Token* to = out.ids.data() + before;
    Py_ssize_t done = 0;
    while (done < size && small(items[done], to[done])) ++done;  // no code of anyone's runs here
    out.ids.resize(before + done);
    // Read anew at each step: a token's own __hash__ may do anything.
    for (Py_ssize_t i = done; i < PySequence_Fast_GET_SIZE(members.ptr()); ++i) {
      PyObject* token = PySequence_Fast_GET_ITEM(members.ptr(), i);
      if (PyLong_Check(token)) {
        int overflow = 0;
        const long long value = PyLong_AsLongLongAndOverflow(token, &overflow);
        if (!overflow && value >= Vocabulary::kFirst + Vocabulary::kMost) {
          out.ids.push_back(value);
          continue;
        }
      }
      out.ids.push_back(unusual(py::reinterpret_borrow<py::object>(token)));
    }
  }

  // A token that is no Python int: NumPy's whole numbers are numbers too, and so is 1.0, which equals 1.
  Token unusual(py::object token) {
    if (!PyUnicode_Check(token.ptr()) && !PyLong_Check(token.ptr())) {
      const bool whole = py::hasattr(token, "is_integer") && py::cast<bool>(token.attr("is_integer")());
      if (whole || PyIndex_Check(token.ptr())) {
        const py::object number = token;
        token = py::reinterpret_steal<py::object>(whole ? PyNumber_Long(number.ptr()) : PyNumber_Index(number.ptr()));
        if (!token) {  // a tensor that holds a fraction
          PyErr_Clear();
          fail("whole numbers or hashable tokens", number);
        }
        int overflow = 0;
        const long long value = PyLong_AsLongLongAndOverflow(token.ptr(), &overflow);
        if (!overflow && value >= Vocabulary::kFirst + Vocabulary::kMost) return value;
      }
    }
    return code(token);
  }

  Token code(py::handle key) {
    try {
      return vocabulary_.object(key);
    } catch (py::error_already_set& error) {
      if (!error.matches(PyExc_TypeError)) throw;
    }
    fail("hashable tokens", key);
  }

  void text(py::handle item) {
    const int kind = PyUnicode_KIND(item.ptr());
    const void* data = PyUnicode_DATA(item.ptr());
    const Py_ssize_t size = PyUnicode_GET_LENGTH(item.ptr());
    if (unit_ == Unit::characters || unit_ == Unit::visible) {
      for (Py_ssize_t i = 0; i < size; ++i) {
        const Py_UCS4 c = PyUnicode_READ(kind, data, i);
        if (unit_ == Unit::characters || !Py_UNICODE_ISSPACE(c)) out.ids.push_back(Token(c));
      }
      return;
    }
    for (Py_ssize_t begin = 0, i = 0; i <= size; ++i) {
      if (i < size && !parts(PyUnicode_READ(kind, data, i))) continue;
      if (i > begin) word({kind, data, begin, i});
      begin = i + 1;
    }
  }

  // Whether a character stands between words.
  bool parts(Py_UCS4 c) const {
    if (unit_ == Unit::latin_words) return !((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'));
    return Py_UNICODE_ISSPACE(c);
  }

  void word(const Word& word) {
    Py_ssize_t cut = 0;  // where punctuation is parted from the rest
    if (unit_ == Unit::chrf_words && word.size() > 1) {
      if (punctuation(word[word.size() - 1])) cut = word.size() - 1;
      else if (punctuation(word[0])) cut = 1;
    }
    if (cut) out.ids.push_back(vocabulary_.word({word.kind, word.data, word.begin, word.begin + cut}));
    out.ids.push_back(vocabulary_.word({word.kind, word.data, word.begin + cut, word.end}));
  }

  // That of ASCII, as C's ispunct knows it without a locale.
  static bool punctuation(Py_UCS4 c) {
    return c > 32 && c < 127 && !(c >= '0' && c <= '9') && !(c >= 'A' && c <= 'Z') && !(c >= 'a' && c <= 'z');
  }

  std::string name_;
  Unit unit_;
  Vocabulary& vocabulary_;
  Py_ssize_t index_ = -1;
};

}  // namespace

Sequences encode(const std::string& name, py::handle items, Unit unit, Vocabulary& vocabulary) {
  Encoder encoder(name, unit, vocabulary);
  encoder.batch(items, [&](py::handle item) { encoder.sequence(item); });
  return std::move(encoder.out);
}

Sequences piece_ends(const std::string& name, py::handle items, bool whitespace) {
  Vocabulary none;
  Encoder encoder(name, Unit::characters, none);
  encoder.batch(items, [&](py::handle item) { encoder.ends(item, whitespace); });
  return std::move(encoder.out);
}

Sequences encode_groups(const std::string& name, py::handle items, Unit unit, Vocabulary& vocabulary,
                        std::vector<int64_t>& starts) {
  Encoder encoder(name, unit, vocabulary);
  starts.assign(1, 0);
  encoder.batch(items, [&](py::handle item) { starts.push_back(starts.back() + encoder.group(item)); });
  return std::move(encoder.out);
}

}  // namespace pgest::text
