// What depends on one point only: its unit vector, its variance before every op, its own kernel
// value; and a program followed for one point with itself (x' = x), from which all this comes.
#pragma once

#include <cstdint>
#include <vector>

#include "../math/relu_chain.h"
#include "../program/program.h"
#include "views.h"

namespace ntk {

// Variance q (= K at x' = x) and tangent kernel t of one point in one slot.
struct PointState {
  double q, t;
};

// Is the first feature of the op the inverse of a root of a variance? Of a vector op or a plane op.
template <class AnyOp>
bool holds_inverse(const AnyOp& op) {
  return op.kind == decltype(op.kind)::pointwise && holds_inverse(op.pointwise, op.constants);
}

// An inverse up to `limit`, and 0 beyond, as of variance 0.
template <class T>
T bounded_inverse(double value, double limit) {
  return value > limit ? T(0) : T(value);
}

// Of positions, up to which products of two are finite, with room for a convolution's constant.
template <class T>
constexpr double kLargestInverse = sizeof(T) == 4 ? 1e17 : 1e150;

// Runs a program on the slots of one point: step(number, op, value, other) returns the slot's new
// value, `other` being that of an op's other slot, and emit(op, value) receives what comes out.
template <class Value, class Step, class Emit>
void follow_point(const Program& program, Value* slots, Step&& step, Emit&& emit) {
  for (int i = 0; i < program.size; ++i) {
    const Op& op = program.ops[i];
    Value& value = slots[op.slot];
    if (op.kind == OpKind::emit)
      emit(op, value);
    else
      value = step(i, op, value, of_two_slots(op.kind) ? slots[op.other] : value);
  }
}

// An op on one slot of one point; its two features in f: alpha and beta of relu_chain.h, or
// side(q), or none.
NTK_HD PointState point_step(const Op& op, PointState s, const PointState& other, double* f) {
  if (of_two_slots(op.kind)) {
    f[0] = f[1] = 0;
    combine(op.kind, s.q, s.t, other.q, other.t);
    return s;
  }
  if (op.kind == OpKind::affine) {
    const Affine<double> map = op.constants.affine();
    chain_features(map, s.q, f);
    return {map.nngp(s.q), map.ntk(s.q, s.t)};
  }
  const WithItself<double> r = with_itself(op.pointwise, op.constants, s.q);
  f[0] = r.f[0];
  f[1] = r.f[1];
  return {r.E, r.D * s.t};
}

// Runs the program on `slots`; feature(op number, which, value) and emit(output, nngp, ntk) receive
// what comes out.
template <class Feature, class Emit>
void follow_kernels(const Program& program, PointState* slots, Feature&& feature, Emit&& emit) {
  const auto step = [&](int i, const Op& op, const PointState& s, const PointState& other) {
    double f[2];
    const PointState after = point_step(op, s, other, f);
    for (int which = 0; which < 2; ++which) feature(i, which, f[which]);
    return after;
  };
  follow_point(program, slots, step, [&](const Op& op, const PointState& s) {
    const Affine<double> map = op.constants.affine();
    emit(op.other, map.nngp(s.q), map.ntk(s.q, s.t));
  });
}

// Points of a data matrix in T; their features are those of point_step.
template <class T>
class Points {
 public:
  // x: [size][width], C order. Variances are followed in double whatever T is.
  Points(const Program& program, const T* x, std::int64_t size, std::int64_t width);
  // Without the data, whose unit vectors lie elsewhere: norm2 is |x|^2 of every point.
  Points(const Program& program, const double* norm2, std::int64_t size, std::int64_t width,
         int threads);
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
