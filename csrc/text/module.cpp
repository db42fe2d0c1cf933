// `pgest._text`: the metrics for Python, on sequences that were read once. The GIL is free while they run.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>

#include "bleu.h"
#include "chrf.h"
#include "encode.h"
#include "overlap.h"

namespace {

using namespace pgest::text;
namespace py = pybind11;

template <class T>
using Array = py::array_t<T, py::array::c_style | py::array::forcecast>;
using Starts = Array<int64_t>;

template <class T>
py::array_t<T> copy(const std::vector<T>& values) {
  return py::array_t<T>(py::ssize_t(values.size()), values.data());
}

// Where a sequence ends for good: at its first EOS, which itself counts only if it is kept.
int64_t end_of(Tokens tokens, std::optional<Token> eos, bool keep_eos) {
  if (!eos) return int64_t(tokens.size());
  const int64_t at = std::find(tokens.begin(), tokens.end(), *eos) - tokens.begin();
  return std::min<int64_t>(at + keep_eos, int64_t(tokens.size()));
}

Sequences cut(const Sequences& sequences, Token eos, bool keep_eos) {
  Sequences out;
  for (int64_t i = 0; i < sequences.size(); ++i) {
    const Tokens tokens = sequences[i];
    out.ids.insert(out.ids.end(), tokens.begin(), tokens.begin() + end_of(tokens, eos, keep_eos));
    out.end_sequence();
  }
  return out;
}

Sequences padded(const Array<int64_t>& ids, const std::optional<Array<bool>>& mask, std::optional<Token> eos,
                 bool keep_eos) {
  if (ids.ndim() != 2 || (mask && (mask->ndim() != 2 || mask->size() != ids.size())))
    throw py::value_error("ids and mask must be [sequences, positions]");
  const int64_t rows = ids.shape(0), width = ids.shape(1);
  const Token* id = ids.data();
  const bool* counts = mask ? mask->data() : nullptr;
  Sequences out;
  out.ids.reserve(rows * width);
  for (int64_t r = 0; r < rows; ++r, id += width) {
    for (int64_t t = 0; t < width; ++t) {
      if (counts && !counts[r * width + t]) continue;
      const bool ends = eos && id[t] == *eos;
      if (!ends || keep_eos) out.ids.push_back(id[t]);
      if (ends) break;
    }
    out.end_sequence();
  }
  return out;
}

Batch batch(const Sequences& hypotheses, const Sequences& references, const Starts& starts, int threads) {
  const std::span<const int64_t> all(starts.data(), size_t(starts.size()));
  const int64_t groups = int64_t(all.size()) - 1;
  bool good = groups >= 0 && all.front() == 0 && all.back() == references.size();
  for (int64_t g = 0; good && g < groups; ++g) good = all[g] < all[g + 1];
  if (!good || (groups ? hypotheses.size() % groups : hypotheses.size()) != 0)
    throw py::value_error("starts must part the references into groups that the hypotheses fill evenly");
  return {hypotheses, references, all, threads};
}

// The result's array, [hypotheses, width if there is one, more if there are more].
template <class T>
py::array_t<T> result(const Sequences& hypotheses, int64_t width, int64_t more = 0) {
  if (width && width <= hypotheses.longest()) throw py::value_error("width must exceed the longest hypothesis");
  std::vector<py::ssize_t> shape = {hypotheses.size()};
  if (width) shape.push_back(width);
  if (more) shape.push_back(more);
  return py::array_t<T>(shape);
}

Bleu settings(int orders, const std::string& smoothing, double value, bool effective_order, bool compensated) {
  const std::string names[] = {"none", "floor", "add-k", "exp"};
  const auto found = std::find(std::begin(names), std::end(names), smoothing);
  if (orders < 1 || orders > kMostOrders || found == std::end(names)) throw py::value_error("no such BLEU");
  return {orders, Smoothing(found - std::begin(names)), value, effective_order, compensated};
}

}  // namespace

PYBIND11_MODULE(_text, m) {
  using Free = py::gil_scoped_release;
  m.doc() = "Metrics of token sequences; see pgest.rewards.";
  m.attr("MOST_ORDERS") = kMostOrders;

  py::class_<Sequences>(m, "Sequences")
      .def("__len__", &Sequences::size)
      .def_property_readonly("ids", [](const Sequences& s) { return copy(s.ids); })
      .def_property_readonly("offsets", [](const Sequences& s) { return copy(s.offsets); })
      .def_property_readonly("longest", &Sequences::longest);

  py::enum_<Unit>(m, "Unit")
      .value("tokens", Unit::tokens)
      .value("characters", Unit::characters)
      .value("visible", Unit::visible)
      .value("words", Unit::words)
      .value("chrf_words", Unit::chrf_words);

  m.def("encode", &encode, py::arg("name"), py::arg("items"), py::arg("unit"), py::arg("vocabulary"));
  m.def("encode_groups", [](const std::string& name, py::handle items, Unit unit, py::dict vocabulary) {
    std::vector<int64_t> starts;
    Sequences out = encode_groups(name, items, unit, std::move(vocabulary), starts);
    return std::pair(std::move(out), copy(starts));
  });
  m.def("piece_ends", [](const std::string& name, py::handle items, bool whitespace) {
    const Sequences ends = piece_ends(name, items, whitespace);
    // Padded with the last: [items, the most pieces].
    const int64_t width = ends.longest();
    py::array_t<int64_t> out({ends.size(), width});
    int64_t* row = out.mutable_data();
    for (int64_t i = 0; i < ends.size(); ++i, row += width) {
      const Tokens of = ends[i];
      std::fill(std::copy(of.begin(), of.end(), row), row + width, of.empty() ? 0 : of.back());
    }
    return out;
  });
  m.def("padded", &padded, py::arg("ids"), py::arg("mask"), py::arg("eos"), py::arg("keep_eos"));
  m.def("cut", &cut, py::arg("sequences"), py::arg("eos"), py::arg("keep_eos"));

  py::class_<Bleu>(m, "Bleu").def(py::init(&settings));
  m.def("bleu", [](const Sequences& h, const Sequences& r, const Starts& starts, int threads, const Bleu& bleu,
                   int64_t width) {
    const Batch b = batch(h, r, starts, threads);
    auto out = result<double>(h, width);
    double* data = out.mutable_data();
    Free free;
    pgest::text::bleu(b, bleu, data, width);
    return out;
  });
  m.def("bleu_statistics", [](const Sequences& h, const Sequences& r, const Starts& starts, int threads,
                              const Bleu& bleu) {
    const Batch b = batch(h, r, starts, threads);
    auto out = result<int64_t>(h, 0, bleu.statistics());
    int64_t* data = out.mutable_data();
    Free free;
    bleu_statistics(b, bleu, data);
    return out;
  });
  m.def("bleu_scores", [](const Array<int64_t>& statistics, const Bleu& bleu) {
    if (statistics.ndim() != 2 || statistics.shape(1) != bleu.statistics())
      throw py::value_error("statistics must be [items, 2 + 2 orders]");
    py::array_t<double> out(statistics.shape(0));
    for (py::ssize_t i = 0; i < statistics.shape(0); ++i)
      out.mutable_data()[i] = bleu_score(statistics.data() + i * bleu.statistics(), bleu);
    return out;
  });
  m.def("chrf", [](const Sequences& h, const Sequences& r, const Starts& starts, int threads,
                   const Sequences* h_words, const Sequences* r_words, int char_orders, int word_orders, double beta,
                   bool eps_smoothing, int64_t width) {
    const Batch b = batch(h, r, starts, threads);
    const bool with_words = word_orders > 0;
    if (char_orders < 1 || char_orders > kMostOrders || word_orders > kMostOrders ||
        with_words != (h_words && r_words) || (with_words && width) ||
        (with_words && (h_words->size() != h.size() || r_words->size() != r.size())))
      throw py::value_error("no such chrF");
    std::optional<Batch> words;
    if (with_words) words.emplace(Batch{*h_words, *r_words, b.starts, threads});
    auto out = result<double>(h, width);
    double* data = out.mutable_data();
    Free free;
    chrf(b, words ? &*words : nullptr, {char_orders, word_orders, beta, eps_smoothing}, data, width);
    return out;
  });
  m.def("closest_reference", [](const Sequences& h, const Sequences& r, const Starts& starts, int threads,
                                int64_t width) {
    const Batch b = batch(h, r, starts, threads);
    auto distance = result<int64_t>(h, width), length = result<int64_t>(h, width);
    int64_t *to = distance.mutable_data(), *to_length = length.mutable_data();
    {
      Free free;
      closest_reference(b, to, to_length, width);
    }
    return std::pair(distance, length);
  });
  m.def("rouge_n", [](const Sequences& h, const Sequences& r, const Starts& starts, int threads, int n) {
    if (n < 1 || n > kMostOrders) throw py::value_error("no such ROUGE");
    const Batch b = batch(h, r, starts, threads);
    auto out = result<double>(h, 0, kNumMeasures);
    double* data = out.mutable_data();
    Free free;
    rouge_n(b, n, data);
    return out;
  });
  m.def("rouge_l", [](const Sequences& h, const Sequences& r, const Starts& starts, int threads, int64_t width) {
    const Batch b = batch(h, r, starts, threads);
    auto out = result<double>(h, width, kNumMeasures);
    double* data = out.mutable_data();
    Free free;
    rouge_l(b, data, width);
    return out;
  });
  m.def("exact_match", [](const Sequences& h, const Sequences& r, const Starts& starts) {
    auto out = result<double>(h, 0);
    exact_match(batch(h, r, starts, 1), out.mutable_data());
    return out;
  });
}
