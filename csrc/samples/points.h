// What depends on one point only: its unit vector, its variance before every op, its own kernel value; and a program
// followed for one point with itself (x' = x), from which all this comes.
#pragma once

#include <cstdint>
#include <vector>

#include "../program/program.h"
#include "views.h"

namespace ntk {

// Variance q (= K at x' = x) and tangent kernel t of one point in one slot.
struct PointState {
  double q, t;
};

inline double root_of_ratio(double numerator, double denominator) {
  return denominator > 0 ? std::sqrt(numerator / denominator) : 0;
}

// Is the first feature the inverse of a root of a variance? Of a plane op or a vector op.
template <class AnyOp>
bool holds_inverse(const AnyOp& op) {
  using Kind = decltype(op.kind);
  if (op.kind == Kind::normalize) return true;
  const bool homogeneous = op.dual == Dual::abrelu || op.dual == Dual::arccos0 || op.dual == Dual::arccos2;
  return op.kind == Kind::dual && homogeneous;
}

// An inverse up to `limit`, and 0 beyond, as of variance 0.
template <class T>
T bounded_inverse(double value, double limit) {
  return value > limit ? T(0) : T(value);
}

// One op on one slot; its two features in f: affine (sqrt(a q/q_new), sqrt(b/q_new)), dual Phi::side(q),
// normalize (1/sqrt(q + eps), 0).
inline PointState point_step(const Op& op, PointState s, double* f) {
  f[0] = f[1] = 0;
  if (op.kind == OpKind::affine) {
    const double q = op.p[0] * s.q + op.p[1];
    f[0] = root_of_ratio(op.p[0] * s.q, q), f[1] = root_of_ratio(op.p[1], q);
    return {q, op.p[0] * s.t + op.p[2] * s.q + op.p[3]};
  }
  if (op.kind == OpKind::dual) {
    PointState out{};
    visit_dual<double>(op.dual, op.p, [&](const auto& phi) {
      double d;
      phi.side(s.q, f);
      phi.diag(s.q, out.q, d);
      out.t = d * s.t;
    });
    return out;
  }
  f[0] = 1 / std::sqrt(s.q + op.p[0]);  // normalize
  return {s.q * f[0] * f[0], s.t * f[0] * f[0]};
}

// Runs the program on `slots`; feature(op number, which, value) and emit(output, nngp, ntk) receive what comes out.
template <class Feature, class Emit>
void follow_point(const Program& program, PointState* slots, Feature&& feature, Emit&& emit) {
  for (int i = 0; i < program.size; ++i) {
    const Op& op = program.ops[i];
    PointState& s = slots[op.slot];
    if (op.kind == OpKind::copy) {
      s = slots[op.other];
    } else if (op.kind == OpKind::add) {
      s.q += slots[op.other].q, s.t += slots[op.other].t;
    } else if (op.kind == OpKind::emit) {
      emit(op.other, op.p[0] * s.q + op.p[1], op.p[0] * s.t + op.p[2] * s.q + op.p[3]);
    } else {
      double f[2];
      s = point_step(op, s, f);
      feature(i, 0, f[0]), feature(i, 1, f[1]);
    }
  }
}

// Points of a data matrix in T; their features are those of point_step.
template <class T>
class Points {
 public:
  // x: [size][width], C order. Variances are followed in double whatever T is.
  Points(const Program& program, const T* x, std::int64_t size, std::int64_t width);
  // Without the data, whose unit vectors lie elsewhere: norm2 is |x|^2 of every point.
  Points(const Program& program, const double* norm2, std::int64_t size, std::int64_t width, int threads);
  PointsView<T> view() const;
  const T* unit() const { return unit_.data(); }  // null without the data
  std::int64_t size() const { return size_; }
  std::int64_t width() const { return width_; }

 private:
  Points(const Program& program, std::int64_t size, std::int64_t width);
  // Features of the points [first, last).
  void follow(const Program& program, const double* norm2, std::int64_t first, std::int64_t last);

  std::int64_t size_, width_, stride_;
  std::vector<T> unit_, root_, table_;
  std::vector<double> nngp_, ntk_;
};

}  // namespace ntk
