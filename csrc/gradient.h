// Derivatives of a kernel's values, by one reverse sweep over the program for every pair: with respect to the constants of
// its affine ops, and to the three scalars <x, x'>/d, |x|^2/d, |x'|^2/d that it starts from. Double precision only.
#pragma once

#include "points.h"

namespace ntk {

// What the sweep needs of one point at one op; q is its variance before the op.
enum class Slope : int {
  q,
  f0,  // the features of dual.h's side(q), or of normalize
  f1,
  df0,  // their derivatives with respect to q
  df1,
  variance,  // the op's result for the point with itself, K = q: E and D of dual.h's diag(q)
  factor,
  dvariance,  // their derivatives
  dfactor,
  count
};

struct SlopesView {
  PointsView<double> points;
  const double* table;  // [ops][Slope::count][stride]
  const double* at(int op, Slope which) const {
    return table + (int(Slope::count) * std::int64_t(op) + int(which)) * points.stride;
  }
};

class Slopes {
 public:
  Slopes(const Program& program, const PointsView<double>& points);
  const double* table() const { return table_.data(); }

 private:
  std::vector<double> table_;
};

// Something the constants (a, b, e, f) of affine or emit op number `op` depend on, with these slopes: result number
// `result` gathers it. Several knobs may share a result.
struct Knob {
  int op, result;
  double slope[4];
};

// Rows [row, row + rows) against columns [col, col + cols), as in Tile. Results 0 … results - 4 are those of the knobs,
// the last three the derivatives with respect to <x, x'>/d, |x|^2/d and |x'|^2/d; null where not wanted.
struct GradientTile {
  Program program;
  const Knob* knobs;  // in the order of their ops
  int knob_count;
  int results;
  SlopesView row_points, col_points;
  std::int64_t row, rows, col, cols;
  const double* dot;
  std::int64_t dot_stride;
  bool ntk;  // of which kernel
  double* const* out;
  std::int64_t stride;
  void* workspace;  // gradient_bytes(program, results), aligned to 64
};

constexpr int kTapeVectors = 10, kSlotVectors = 6;  // cpu/gradient.h's Step; a slot's values and adjoints

inline std::int64_t gradient_bytes(const Program& program, int results) {
  return 64 * (kTapeVectors * std::int64_t(program.size) + kSlotVectors * std::int64_t(program.slots) + results);
}

}  // namespace ntk
