#include "fuzz.h"

namespace fuzz {

Case::Case(Random& random, bool transformed) {
  using pgest::DType;
  const DType dtype = random.pick({DType::f64, DType::f32, DType::bf16, DType::f16});
  rows_.vocab = random.chance(0.5) ? random.integer(1, 40)
                                   : random.pick<int64_t>({1, 2, 255, 2047, 2048, 2049, 4096, 6001});
  lay_out(random);
  logits_ = Storage(dtype, size_);
  exact_ = Storage(DType::f64, num_rows_ * vocab());
  for (int64_t i = 0; i < size_; ++i) logits_.set(i, std::nan(""));  // gaps must not be read
  tempered_ = random.chance(0.4);
  masked_ = random.chance(0.4);
  mask_ = std::make_unique<bool[]>(num_rows_);
  for (int64_t r = 0; r < num_rows_; ++r) {
    const double odd = random.pick({1e-30, 1e30});
    temperature_.push_back(random.chance(0.1) ? odd : std::exp(random.normal()));
    mask_[r] = random.chance(0.7);
    fill(random, r);
  }
  if (transformed) transform(random);
}

void Case::transform(Random& random) {
  biased_ = random.chance(0.4);
  restricted_ = random.chance(0.4);
  if (random.chance(0.4)) softcap_ = std::exp(2 * random.normal());
  bias_ = Storage(statistics(dtype()), vocab());
  exact_bias_ = Storage(pgest::DType::f64, vocab());
  for (int64_t j = 0; j < vocab(); ++j) {
    bias_.set(j, random.normal());
    exact_bias_.set(j, bias_.get(j));
  }
  // As a float, so that a value is on the same side in f64; not on a value itself, where rounding
  // would decide.
  for (int64_t r = 0; r < num_rows_; ++r) threshold_.push_back(static_cast<float>(random.normal()));
}

// Up to three leading dimensions, outermost first, with gaps between rows and between groups of
// rows; the last row ends where the storage ends.
void Case::lay_out(Random& random) {
  rows_.ndim = static_cast<int>(random.integer(0, 3));
  int64_t extent = vocab();
  for (int d = rows_.ndim - 1; d >= 0; --d) {
    rows_.sizes[d] = random.integer(0, 20) == 0 ? 0 : random.integer(1, 4);
    rows_.strides[d] = random.chance(0.1) ? 0 : extent + random.pick<int64_t>({0, 0, 1, 5});
    if (rows_.sizes[d] > 0) extent += (rows_.sizes[d] - 1) * rows_.strides[d];
    num_rows_ *= rows_.sizes[d];
  }
  size_ = extent;
}

void Case::fill(Random& random, int64_t row) {
  const Kind kind = random.chance(0.5)
                        ? Kind::ordinary
                        : random.pick({Kind::impossible_tokens, Kind::all_impossible, Kind::nan,
                                       Kind::infinite, Kind::tied, Kind::huge});
  const double scale = random.pick({0.1, 1.0, 5.0, 40.0});
  const double most = logits_.dtype() == pgest::DType::f16 ? 6e4 : 1e30;
  const int64_t odd = random.integer(0, vocab() - 1);
  kinds_.push_back(kind);
  const int64_t at = rows_.offset(row);
  for (int64_t j = 0; j < vocab(); ++j) {
    double v = scale * random.normal();
    if (kind == Kind::impossible_tokens && j != odd && random.chance(0.5)) v = -kInf;
    if (kind == Kind::all_impossible) v = -kInf;
    if (kind == Kind::nan && j == odd) v = std::nan("");
    if (kind == Kind::infinite && j == odd) v = kInf;
    if (kind == Kind::tied) v = scale;
    if (kind == Kind::huge) v = random.chance(0.5) ? most : -most;
    logits_.set(at + j, v);
  }
  // Rows that share memory (stride 0) are read back at the end, in `exact`.
  for (int64_t r = 0; r <= row; ++r)
    if (rows_.offset(r) == at) {
      kinds_[r] = kind;
      for (int64_t j = 0; j < vocab(); ++j) exact_.set(r * vocab() + j, logits_.get(at + j));
    }
}

double Case::value(int64_t row, int64_t j) const {
  const double v = unrestricted(row, j);
  return restricted_ && v < threshold_[row] ? -kInf : v;
}

double Case::unrestricted(int64_t row, int64_t j) const {
  double v = logit(row, j);
  if (biased_) v += exact_bias_.get(j);
  return softcap_ != 0 && std::isfinite(v) ? softcap_ * std::tanh(v / softcap_) : v;
}

bool Case::regular(int64_t row) const {
  return live(row) && kinds_[row] != Kind::nan && kinds_[row] != Kind::infinite &&
         kinds_[row] != Kind::all_impossible && restriction_is_clear(row);
}

bool Case::restriction_is_clear(int64_t row) const {
  if (!restricted_) return true;
  const double tau = threshold_[row], near = 1e-5 * (1 + std::abs(tau));
  bool possible = false;
  for (int64_t j = 0; j < vocab(); ++j) {
    const double v = unrestricted(row, j);
    if (std::abs(v - tau) < near) return false;
    possible = possible || v > tau;
  }
  return possible;
}

pgest::LogitRows Case::rows() const {
  pgest::LogitRows in{logits_.dtype(), rows_, num_rows_, logits_.data()};
  in.temperature = tempered_ ? temperature_.data() : nullptr;
  in.mask = masked_ ? mask_.get() : nullptr;
  in.bias = biased_ ? bias_.data() : nullptr;
  in.softcap = softcap_;
  in.threshold = restricted_ ? threshold_.data() : nullptr;
  return in;
}

pgest::LogitRows Case::exact() const {
  pgest::LogitRows in = rows();
  in.dtype = pgest::DType::f64;
  in.logits = exact_.data();
  in.bias = biased_ ? exact_bias_.data() : nullptr;
  in.rows.ndim = 1;
  in.rows.sizes[0] = num_rows_;
  in.rows.strides[0] = vocab();
  return in;
}

}  // namespace fuzz
