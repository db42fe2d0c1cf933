// The tokens that were chosen in a row, with the gradients of their log-probabilities.
#pragma once

#include "../kernels/token_stats.h"
#include "storage.h"
#include "team.h"

namespace pgest::cuda {

template <class T>
struct Chosen {
  using A = Acc<T>;
  const TokenStatsInput& in;
  const A* grad_logp;
  A* room;  // one entry a token: what a row that is overwritten can no longer tell
  int64_t row;

  __device__ int64_t count() const { return grad_logp ? in.num_samples : 0; }
  __device__ int64_t place(int64_t s) const { return s * in.num_rows + row; }
  __device__ double weight(int64_t s) const { return grad_logp[place(s)]; }

  // Checked again: the caller may have written over the tokens since the forward.
  __device__ int64_t token(int64_t s) const {
    const int64_t token = in.tokens[place(s)];
    if (token < 0 || token >= in.rows.vocab) refuse(Refusal::token, row, s);
    return token;
  }

  template <class Team>
  __device__ bool silent() const {
    int loud = 0;
    for (int64_t s = Team::rank(); s < count(); s += Team::size()) loud |= weight(s) != 0;
    return largest_of<Team>(loud) == 0;
  }

  // sum_s f(token, weight).
  template <class Team, class F>
  __device__ double sum(const F& f) const {
    double sum = 0;
    for (int64_t s = Team::rank(); s < count(); s += Team::size()) sum += f(token(s), weight(s));
    return sum_of<Team>(sum);
  }

  // The gradient of each chosen token, rest(token) + the weight of all samples that chose it / T, before
  // the pass that may overwrite the row.
  template <class Team, class F>
  __device__ void take(double temperature, const F& rest) const {
    for (int64_t s = Team::rank(); s < count(); s += Team::size()) {
      if (!is_first(s)) continue;
      const int64_t token = in.tokens[place(s)];
      double w = 0;
      for (int64_t k = s; k < count(); ++k)
        if (in.tokens[place(k)] == token) w += weight(k);
      room[place(s)] = static_cast<A>(rest(token) + w / temperature);
    }
    Team::sync();
  }

  // To the row, after that pass: a half type is rounded once.
  template <class Team>
  __device__ void put(T* out) const {
    Team::sync();
    for (int64_t s = Team::rank(); s < count(); s += Team::size())
      if (is_first(s)) round_to(out[in.tokens[place(s)]], room[place(s)]);
  }

 private:
  __device__ bool is_first(int64_t s) const {
    for (int64_t k = 0; k < s; ++k)
      if (in.tokens[place(k)] == in.tokens[place(s)]) return false;
    return true;
  }
};

template <class Team, class T>
__device__ void fill_zero(T* out, int64_t vocab) {
  for_chunks<Team>(out, vocab, [&](int64_t at, int n, auto) {
    const Acc<T> zero[kChunk] = {};
    store(out + at, n, zero);
  });
}

}  // namespace pgest::cuda
