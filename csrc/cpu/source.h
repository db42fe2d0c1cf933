// A row of logits as blocks of values.
#pragma once

#include <algorithm>

#include "values.h"

namespace pgest {

template <class T>
using Acc = typename Accumulate<T>::type;
template <class A>
constexpr A kInfinity = std::numeric_limits<A>::infinity();

// The values are the logits' own where nothing changes them.
template <bool kTransform, class T>
struct Source {
  using Buffer = Acc<T>[kTransform || kConverts<T> ? kBlock : 1];

  const T* row;
  int64_t size;
  const Transform<Acc<T>>& by;

  int64_t count() const { return (size + kBlock - 1) / kBlock; }
  PGEST_INLINE int64_t length(int64_t block) const { return std::min(kBlock, size - block * kBlock); }
  PGEST_INLINE const Acc<T>* load(int64_t block, Acc<T>* buffer) const {
    return load_values<kTransform>(row + block * kBlock, block * kBlock, length(block), buffer, by);
  }

  template <class F>
  PGEST_INLINE void blocks(const F& each) const {
    alignas(64) Buffer buffer;
    for (int64_t block = 0; block < count(); ++block) each(load(block, buffer), length(block));
  }
};

}  // namespace pgest
