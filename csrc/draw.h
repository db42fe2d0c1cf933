// From uniforms to draws, shared by every device.
#pragma once

#include "row.h"

namespace pgest {

// How the S draws of a row hang together.
enum Method { kIndependent, kAntithetic, kStratified, kWithoutReplacement };

constexpr double kBelowOne = 1 - 0x1p-53;  // the largest uniform

// How many independent uniforms a row needs: without replacement two a sample, for the perturbed value
// and for the token.
PGEST_HD int64_t count_of_uniforms(Method method, int64_t num_samples) {
  if (method == kWithoutReplacement) return 2 * num_samples;
  return method == kAntithetic ? (num_samples + 1) / 2 : num_samples;
}

// The uniform of sample s of S, from a row's independent uniforms u(0), u(1), ...: each is uniform in
// [0, 1). Antithetic: sample ceil(S / 2) + s mirrors sample s. Stratified: each of S equal parts of
// [0, 1) holds one; which one sample s falls into turns with the part that u(0) happens to be in.
template <class U>
PGEST_HD double uniform_of(Method method, const U& u, int64_t s, int64_t num_samples) {
  if (method == kAntithetic) {
    const int64_t half = (num_samples + 1) / 2;
    return s < half ? u(s) : kBelowOne - u(s - half);
  }
  if (method != kStratified || s == 0) return u(s);
  const double n = static_cast<double>(num_samples);
  const int64_t part = (static_cast<int64_t>(u(0) * n) + s) % num_samples;
  const double x = (static_cast<double>(part) + u(s)) / n;
  return x < kBelowOne ? x : kBelowOne;
}

// Without replacement, log p + Gumbel noise is known from the top down. Its maximum over tokens of
// total probability r is a Gumbel at log r, and says nothing about which of them attains it. So the
// next is a Gumbel at the log r of the tokens that are left, given that it is below the previous one:
//   exp(-next) = exp(-previous) + E / r,  E = -log(1 - u)
// that is, arrivals of a Poisson process. The first has previous = inf and r = 1.
PGEST_HD double next_perturbed(double previous, double u, double log_rest) {
  const double smallest = 0x1p-54;  // stands for u = 0, whose E is 0
  const double arrival = log(-log1p(-(u > smallest ? u : smallest))) - log_rest;
  const double gap = arrival + previous;
  return gap < 0 ? previous - log1p(exp(gap)) : -arrival - log1p(exp(-gap));
}

// A token is drawn among those that are left by their weights, which are relative to the row's pivot:
// below this sum they have lost too much, and are taken again relative to the largest that is left.
constexpr double kSmallestRest = 0x1p-40;

}  // namespace pgest
