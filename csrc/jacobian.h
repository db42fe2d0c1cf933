// The Jacobians of samples of one row, shared by every device. With q = softmax(z / T), p = softmax(z),
// x the one-hot sample and J_q = diag(q) - q q^T:
//
//   softmax, straight_through   J = J_q / T
//   reinmax                     J = J_q + 1/2 (x - q) (x - q)^T - 1/2 J_p
//
// (T = 1: 1/2 J_p + 1/2 (x - p) (x - p)^T). All are symmetric, so that J^T g = J g.
#pragma once

#include "row.h"

namespace pgest {

// What a row's product J g needs beside q, p and g: with Q = <q, g>, P = <p, g>,
//   (J g)_j = q_j (scale (g_j - Q) - rank_one) - tempered p_j (g_j - P) + [j is the token] rank_one
template <class A>
struct JacobianRow {
  A scale, mean_q, rank_one, tempered, mean_p;
};

template <class A>
PGEST_HD JacobianRow<A> softmax_row(double mean_q, double temperature) {
  return {static_cast<A>(1 / temperature), static_cast<A>(mean_q), 0, 0, 0};
}

// `chosen` is g at the token; mean_p is mean_q where T is 1.
template <class A>
PGEST_HD JacobianRow<A> reinmax_row(double mean_q, double mean_p, double chosen, double temperature) {
  const auto rank_one = static_cast<A>(0.5 * (chosen - mean_q));
  if (temperature == 1) return {A(0.5), static_cast<A>(mean_q), rank_one, 0, 0};
  return {1, static_cast<A>(mean_q), rank_one, A(0.5), static_cast<A>(mean_p)};
}

// A gradient that counts: what has no probability contributes nothing, not 0 * inf.
template <class A>
PGEST_HD A counted(A probability, A grad) {
  return probability == 0 ? 0 : grad;
}

// Of q alone: the part of an element that every Jacobian has.
template <class A>
PGEST_HD A jacobian_of(A q, A grad, const JacobianRow<A>& row) {
  return q * (row.scale * (counted(q, grad) - row.mean_q) - row.rank_one);
}

template <class A>
PGEST_HD A tempered_of(A p, A grad, const JacobianRow<A>& row) {
  return row.tempered * p * (counted(p, grad) - row.mean_p);
}

}  // namespace pgest
