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
  mix,        // K, T <- G K G'', G T G'', G a matrix of positions of each sample's own: see Matrix
  embed,      // K, T <- K + a R, T + b R, R a GridTable: the covariance of what positions add
  relate,     // K, T <- s K, s' K + s (T + 4 K) with s = sum K K2, s' = sum K2 T + K T2 over all
              // pairs of positions, K2 and T2 those of slot `other`
  recur,      // K, T (p, p') += w E, w (E + D T) of (p - 1, p' - 1), in order of p: see recurs()
  readout,    // head slot `other` <- scaled sum over all pairs (p, p')
  trace,      // the same over p = p' only
};

// Where the matrix G of a sample comes from: G(s, t) is how much position s reads of position t.
enum class Matrix : int {
  none,
  given,  // the data: channel t of those beside the features
  // Attention: from L = a K + b R of the sample with itself, R a GridTable or nothing.
  softmax,  // exp(L(s, t)) / sum_t exp(L(s, t)), over positions t that are not masked
  relu,
  abs,
  identity,
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
  const int* needs;  // [out + 1]: how many positions the first so many outputs read
  const Run* runs;
  const int* first_run;      // [taps + 1]: none of a tap that has a mask
  const int* shift;          // [taps]
  const std::int32_t* mask;  // [taps][mask_pitch]
  std::int64_t mask_pitch;
};

// A covariance of positions, [positions][positions].
struct GridTable {
  int positions;
  const double* value;
};

// Position p is masked where position origin[p] of the data is; reach[n]: one more than the last
// that is not, of a sample whose first n positions are in use.
struct MaskTable {
  int positions;
  const int *origin, *reach;
};

// A sparse matrix of positions, row by row: entries start[o] … start[o + 1].
struct MatrixTable {
  int out, reads;  // rows; one more than the last column
  const int *start, *column;
  const double* value;
};

struct FullOp {
  FullOpKind kind;
  Pointwise pointwise;
  int slot, other;
  Constants constants;
  int positions;  // of the slot after the op
  int table;      // its window, matrix or grid (-1: none)
  int mask;       // number of the MaskTable of the slot after the op (-1: none)
  Matrix matrix;  // of a mix, and of weights of positions that a mix before them was left out for
};

// What a sample holds beside its features, in channels that follow them.
struct Beside {
  bool mask;     // 1: in use, 0: masked; the first of them
  bool pattern;  // the matrix `given`: a channel for every position
  int channels(int positions) const { return int(mask) + (pattern ? positions : 0); }
};

struct FullProgram {
  const FullOp* ops;
  int size;
  int slots;
  const WindowTable* windows;
  const MatrixTable* matrices;
  const GridTable* grids;
  const MaskTable* masks;
  int positions, channels;  // of the data; features alone
  Beside beside;
  int largest;  // number of positions
  int most_taps;
  bool diagonal;  // only p = p' of the data is wanted
  // [size + 1]: does a sample's table need all pairs of positions, of the sample with itself, in the
  // slot of the data; in that of op i after it (at i + 1).
  const char* own_pairs;
  Program head;  // slot r of the head starts as read-out r
};

// Is it a normalisation by the means of variances that its matrix takes?
inline bool means_of(const FullOp& op) {
  return op.kind == FullOpKind::pointwise && op.pointwise == Pointwise::normalize &&
         op.constants.p[1] != 0;
}

// Are the features of an op weights of positions: of those in use 1, or, with p[0], one over their
// number?
inline bool holds_weights(const FullOp& op) {
  return op.kind == FullOpKind::pointwise && op.pointwise == Pointwise::weigh;
}

// Is it a recurrence? E and D are those of its pointwise op, a dual activation, of the state one
// position before, which is 0 before the first position and where masked; w is p[3].
inline bool recurs(const FullOp& op) { return op.kind == FullOpKind::recur; }
inline double weight_of_states(const FullOp& op) { return op.constants.p[3]; }

// Rows of positions that a sample's table has for an op: two features; of a recurrence those of the
// state before each position, and which positions are in use; of a mix G and G', and a row that
// starts with 1 where most of G is 0.
inline int features_at(const FullOp& op) {
  if (op.kind == FullOpKind::mix) return 2 * op.positions + 1;
  if (recurs(op)) return 3;
  return op.kind == FullOpKind::pointwise ? 2 : 0;
}

// The number of positions of the data in use, by a sample's table: where some may be masked, its first
// row starts with it.
template <class T>
int length_in(const FullProgram& program, const T* table) {
  return program.beside.mask ? int(table[0]) : program.positions;
}
inline int length_rows(const Beside& beside) { return beside.mask ? 1 : 0; }

// Rows of positions of all matrices and tables lie this far apart: whole cache lines, and no power
// of two, whose rows would fight for the same cache sets.
template <class T>
std::int64_t pitch_of(const FullProgram& program) {
  constexpr int line = 64 / sizeof(T);
  const std::int64_t lines = (std::int64_t(program.largest) + line - 1) / line;
  return line * (lines % 8 == 0 ? lines + 1 : lines);
}

}  // namespace ntk
