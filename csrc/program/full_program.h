// The program of a network of positions by full covariances: K(p, p') and T(p, p') of a pair of
// samples over all pairs of positions, whatever axes they come from; read-outs, then a head of
// vector ops. A slot may hold the pairs p = p' alone, where nothing else is wanted of it.
#pragma once

#include <cstdint>

#include "program.h"

namespace ntk {

enum class FullOpKind : int {
  affine,     // K, T <- an Affine of them
  pointwise,  // K, T <- E, D T, with the variances at both positions, or means_of() them
  window,     // K, T <- an Affine of sum_t K(source_t(o), source_t(o')): see WindowTable
  linear,     // K, T <- L K L', L T L': see MatrixTable
  copy,       // slot `slot` <- slot `other`
  add,        // slot `slot` += slot `other`
  multiply,   // K, T <- K K', T K' + K T' with those of slot `other`
  diagonal,   // only the pairs p = p' are kept
  spread,     // from pairs p = p' to all pairs, 0 elsewhere
  readout,    // head slot `other` <- scaled sum over all pairs (p, p')
  trace,      // the same over p = p' only
};

inline bool is_affine(FullOpKind kind) {
  return kind == FullOpKind::affine || kind == FullOpKind::window;
}

// Outputs to, to + 1, … that read from, from + step, …
struct Run {
  int to, from, count, step;
};

// Where output o reads by tap t: source[t out + o], or -1: nowhere. The same, tap by tap: in runs,
// or, where every output that reads at all reads at the same distance, by a mask of ones.
struct WindowTable {
  int taps, out;
  const int* source;
  const Run* runs;
  const int* first_run;      // [taps + 1]: none of a tap that has a mask
  const int* shift;          // [taps]
  const std::int32_t* mask;  // [taps][mask_pitch]
  std::int64_t mask_pitch;
};

// A sparse matrix of positions, row by row: entries start[o] … start[o + 1].
struct MatrixTable {
  int out;
  const int *start, *column;
  const double* value;
};

struct FullOp {
  FullOpKind kind;
  Pointwise pointwise;
  int slot, other;
  Constants constants;
  int positions;  // of the slot after the op
  int table;      // its window or matrix
};

struct FullProgram {
  const FullOp* ops;
  int size;
  int slots;
  const WindowTable* windows;
  const MatrixTable* matrices;
  int positions, channels;  // of the data
  int largest;              // number of positions
  int most_taps;
  bool diagonal;  // only p = p' of the data is wanted
  Program head;   // slot r of the head starts as read-out r
};

// Is it a normalisation by the means of variances that its matrix takes?
inline bool means_of(const FullOp& op) {
  return op.kind == FullOpKind::pointwise && op.pointwise == Pointwise::normalize &&
         op.constants.p[1] != 0;
}

// Features that one position has for an op.
inline int features_at(const FullOp& op) { return op.kind == FullOpKind::pointwise ? 2 : 0; }

// Rows of positions of all matrices and tables lie this far apart: whole cache lines, and no power
// of two, whose rows would fight for the same cache sets.
template <class T>
std::int64_t pitch_of(const FullProgram& program) {
  constexpr int line = 64 / sizeof(T);
  const std::int64_t lines = (std::int64_t(program.largest) + line - 1) / line;
  return line * (lines % 8 == 0 ? lines + 1 : lines);
}

}  // namespace ntk
