// Which tokens of a row top-p and min-p keep, in units of its values v: shared by every device.
#pragma once

#include "row.h"

namespace pgest {

// p >= min_p * max p is v >= max v + T log(min_p).
PGEST_HD double min_p_edge(double largest, double temperature, double log_min_p) {
  return largest + temperature * log_min_p;
}

// What lies below this is not the token that crosses top_p: even if all the vocabulary were like it,
// its mass would be below the 1 - top_p that is left over (half of it: sums are rounded). `sum` is
// the row's mass relative to its largest value.
PGEST_HD double top_p_bound(double largest, double sum, int64_t vocab, double bits_per_value,
                            double top_p) {
  return largest + log2(0.5 * (1 - top_p) * sum / static_cast<double>(vocab)) / bits_per_value;
}

// To the type of the values, where `v >= edge` then says what it says in double.
template <class A>
PGEST_HD A round_up(double edge) {
  const A a = static_cast<A>(edge);
  return a < edge ? std::nextafter(a, std::numeric_limits<A>::infinity()) : a;
}

}  // namespace pgest
