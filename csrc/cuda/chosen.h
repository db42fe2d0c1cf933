// Tokens of a row that have a gradient of their own: those that were chosen, with the gradients of their
// log-probabilities. A list of them has count(), token(k), weight(k) and kept(k), the room for what a row
// that is overwritten can no longer tell.
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
  A* room;  // one entry a token
  int64_t row;

  __device__ int64_t count() const { return grad_logp ? in.num_samples : 0; }
  __device__ double weight(int64_t s) const { return grad_logp[place(s)]; }
  __device__ A& kept(int64_t s) const { return room[place(s)]; }

  // Checked again: the caller may have written over the tokens since the forward.
  __device__ int64_t token(int64_t s) const {
    const int64_t token = in.tokens[place(s)];
    if (token < 0 || token >= in.rows.vocab) refuse(Refusal::token, row, s);
    return token;
  }

 private:
  __device__ int64_t place(int64_t s) const { return s * in.num_rows + row; }
};

template <class Team, class List>
__device__ bool silent(const List& list) {
  int loud = 0;
  for (int64_t k = Team::rank(); k < list.count(); k += Team::size()) loud |= list.weight(k) != 0;
  return largest_of<Team>(loud) == 0;
}

// sum_k f(token, weight).
template <class Team, class List, class F>
__device__ double sum_over(const List& list, const F& f) {
  double sum = 0;
  for (int64_t k = Team::rank(); k < list.count(); k += Team::size()) sum += f(list.token(k), list.weight(k));
  return sum_of<Team>(sum);
}

template <class List>
__device__ bool is_first(const List& list, int64_t k) {
  for (int64_t earlier = 0; earlier < k; ++earlier)
    if (list.token(earlier) == list.token(k)) return false;
  return true;
}

// Keeps the gradient of each token, finish(token, the weight of all that chose it / T), before the pass
// that may overwrite the row.
template <class Team, class List, class F>
__device__ void keep(const List& list, double temperature, const F& finish) {
  for (int64_t k = Team::rank(); k < list.count(); k += Team::size()) {
    if (!is_first(list, k)) continue;
    const int64_t token = list.token(k);
    double weight = 0;
    for (int64_t same = k; same < list.count(); ++same)
      if (list.token(same) == token) weight += list.weight(same);
    list.kept(k) = finish(token, weight / temperature);
  }
  Team::sync();
}

// To the row, after that pass: a half type is rounded once.
template <class Team, class List, class T>
__device__ void put_kept(const List& list, T* out) {
  Team::sync();
  for (int64_t k = Team::rank(); k < list.count(); k += Team::size())
    if (is_first(list, k)) round_to(out[list.token(k)], list.kept(k));
}

template <class Team, class T>
__device__ void fill_zero(T* out, int64_t vocab) {
  for_chunks<Team>(out, vocab, [&](int64_t at, int n, const auto&) {
    const Acc<T> zero[kChunk] = {};
    store(out + at, n, zero);
  });
}

}  // namespace pgest::cuda
