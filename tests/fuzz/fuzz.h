// Random cases for the CPU kernels, which run here without torch and under sanitizers: buffers are
// exactly as large as they must be, so that a read or write beside them is caught.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "../../csrc/cpu/simd.h"
#include "../../csrc/kernels/common.h"

namespace fuzz {

constexpr double kInf = std::numeric_limits<double>::infinity();

// All that is random in a case, from one number.
class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}

  int64_t integer(int64_t low, int64_t high) {  // both included
    return std::uniform_int_distribution<int64_t>(low, high)(engine_);
  }
  double uniform() { return std::uniform_real_distribution<double>(0, 1)(engine_); }
  double normal() { return std::normal_distribution<double>()(engine_); }
  bool chance(double p) { return uniform() < p; }
  template <class T>
  T pick(std::initializer_list<T> choices) {
    return choices.begin()[integer(0, static_cast<int64_t>(choices.size()) - 1)];
  }

 private:
  std::mt19937_64 engine_;
};

// Stops the run with what broke; main says with which seed.
[[noreturn]] void fail(const std::string& what);

inline void expect(bool holds, const char* what) {
  if (!holds) fail(what);
}

// `a` is within `tolerance` of `b`, or both are the same infinity, or both NaN.
inline void expect_close(double a, double b, double tolerance, const char* what) {
  if (std::isnan(a) && std::isnan(b)) return;
  if (a == b || std::abs(a - b) <= tolerance) return;
  fail(std::string(what) + ": " + std::to_string(a) + " and " + std::to_string(b));
}

// Memory of exactly `count` elements of a storage type.
class Storage {
 public:
  Storage() = default;
  Storage(pgest::DType dtype, int64_t count)
      : dtype_(dtype), bytes_(std::make_unique<unsigned char[]>(count * size())) {}

  void* data() { return bytes_.get(); }
  const void* data() const { return bytes_.get(); }
  pgest::DType dtype() const { return dtype_; }

  double get(int64_t i) const {
    switch (dtype_) {
      case pgest::DType::f64: return at<double>(i);
      case pgest::DType::f32: return at<float>(i);
      case pgest::DType::bf16: return pgest::to_float(at<pgest::BFloat16>(i));
      case pgest::DType::f16: return pgest::to_float(at<pgest::Half>(i));
    }
    return 0;
  }
  void set(int64_t i, double v) {
    switch (dtype_) {
      case pgest::DType::f64: at<double>(i) = v; break;
      case pgest::DType::f32: at<float>(i) = static_cast<float>(v); break;
      case pgest::DType::bf16: pgest::round_to(at<pgest::BFloat16>(i), static_cast<float>(v)); break;
      case pgest::DType::f16: pgest::round_to(at<pgest::Half>(i), static_cast<float>(v)); break;
    }
  }

 private:
  int64_t size() const {
    return dtype_ == pgest::DType::f64 ? 8 : dtype_ == pgest::DType::f32 ? 4 : 2;
  }
  template <class T>
  T& at(int64_t i) {
    return reinterpret_cast<T*>(bytes_.get())[i];
  }
  template <class T>
  const T& at(int64_t i) const {
    return reinterpret_cast<const T*>(bytes_.get())[i];
  }

  pgest::DType dtype_ = pgest::DType::f64;
  std::unique_ptr<unsigned char[]> bytes_;
};

// Statistics are double for f64 storage, float for all other.
inline pgest::DType statistics(pgest::DType dtype) {
  return dtype == pgest::DType::f64 ? pgest::DType::f64 : pgest::DType::f32;
}

// What a row of a case holds beside ordinary numbers.
enum class Kind { ordinary, impossible_tokens, all_impossible, nan, infinite, tied, huge };

// Rows of logits in some layout, the same values in f64 and packed, and what belongs to each row.
class Case {
 public:
  // `transformed`: perhaps with a bias, a softcap and a threshold.
  Case(Random& random, bool transformed);

  pgest::LogitRows rows() const;   // in the case's own dtype and strides
  pgest::LogitRows exact() const;  // the same values in f64, contiguous
  int64_t vocab() const { return rows_.vocab; }
  int64_t num_rows() const { return num_rows_; }
  pgest::DType dtype() const { return logits_.dtype(); }
  double logit(int64_t row, int64_t j) const { return exact_.get(row * vocab() + j); }
  double value(int64_t row, int64_t j) const;  // v of kernels/common.h, in f64
  Kind kind(int64_t row) const { return kinds_[row]; }
  bool live(int64_t row) const { return !masked_ || mask_[row]; }
  double temperature(int64_t row) const { return tempered_ ? temperature_[row] : 1; }
  bool transformed() const { return biased_ || softcap_ != 0 || restricted_; }
  bool squashed() const { return softcap_ != 0; }
  bool restricted() const { return restricted_; }
  // Whether the row has a softmax: live, nothing NaN or +inf in it, something surely possible.
  bool regular(int64_t row) const;

 private:
  void lay_out(Random& random);
  void transform(Random& random);
  void fill(Random& random, int64_t row);
  double unrestricted(int64_t row, int64_t j) const;
  bool restriction_is_clear(int64_t row) const;  // no rounding decides who is excluded, nor is all

  pgest::Rows rows_;
  int64_t num_rows_ = 1, size_ = 0;
  Storage logits_, exact_;
  Storage bias_, exact_bias_;  // in the dtype of the statistics, and in f64
  double softcap_ = 0;
  std::vector<Kind> kinds_;
  std::vector<double> temperature_, threshold_;
  std::unique_ptr<bool[]> mask_;
  bool tempered_, masked_, biased_ = false, restricted_ = false;
};

// Each file beside this one that tests an op offers one such function.
void token_stats(Random& random);
void row_threshold(Random& random);
void sample(Random& random);
void gumbel_softmax(Random& random);
void straight_through(Random& random);
void bits_of_rows(Random& random);
void text_metrics(Random& random);

}  // namespace fuzz
