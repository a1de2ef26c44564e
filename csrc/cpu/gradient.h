// The reverse sweep of GradientTile: a program forward on a group of pairs, op by op, then back
// with the adjoints.
#pragma once

#include "tile.h"

#include <utility>

#include "../math/jet.h"
#include "../math/relu_chain.h"

namespace ntk {
namespace {

// What K <- E, T <- D T of a pointwise op depends on: E, D and their derivatives by K, q and q'.
template <class V>
struct Local {
  V E, D, E_K, D_K, E_row, D_row, E_col, D_col;
};

// K and T before an op, and, of a nonlinear one, how it acts; of two slots, E and D of `local` are K
// and T of the other one.
template <class V>
struct Step {
  V K, t;
  Local<V> local;
};

// Derivatives of the result by K, T, q and q' of a slot.
template <class V>
struct Adjoint {
  V K, t, row, col;
};

template <class V>
struct State {
  V K, t;
};

static_assert(sizeof(Step<double>) == kTapeVectors * sizeof(double));
static_assert(sizeof(Adjoint<double>) + sizeof(State<double>) == kSlotVectors * sizeof(double));

// Row `row` against a group of columns from `col` on.
template <class V>
struct PairGroup {
  const SlopesView &rows, &cols;
  std::int64_t row, col;

  NTK_HD V at_row(int op, Slope which) const { return splat(rows.at(op, which)[row]); }
  NTK_HD V at_col(int op, Slope which) const { return load(cols.at(op, which) + col); }

  static NTK_HD std::pair<Slope, Slope> feature(int which) {
    if (which & 1) return {Slope::f1, Slope::df1};
    return {Slope::f0, Slope::df0};
  }

  template <class Phi>
  NTK_HD Local<V> pointwise(const Phi& phi, int i, V K) const {
    using J = Jet<V, 3>;
    J E, D;
    // Feature number `which`, below 0 of the ops before.
    const auto row = [&](int which) __attribute__((always_inline)) {
      const auto [f, df] = feature(which);
      return J::variable(at_row(i + (which >> 1), f), 1, at_row(i + (which >> 1), df));
    };
    const auto col = [&](int which) __attribute__((always_inline)) {
      const auto [f, df] = feature(which);
      return J::variable(at_col(i + (which >> 1), f), 2, at_col(i + (which >> 1), df));
    };
    pair_of(phi, J::variable(K, 0, splat(1.0)), row, col, terms_of(phi, row, col), E, D);
    return {E.v, D.v, E.d[0], D.d[0], E.d[1], D.d[1], E.d[2], D.d[2]};
  }
};

// A point with itself: everything is a function of K = q.
struct SamePoint {
  const SlopesView& rows;
  std::int64_t row;

  double at_row(int op, Slope which) const { return rows.at(op, which)[row]; }
  double at_col(int, Slope) const { return 0; }

  template <class Phi>
  Local<double> pointwise(const Phi&, int i, double) const {
    Local<double> l{};
    l.E = at_row(i, Slope::variance);
    l.D = at_row(i, Slope::factor);
    l.E_K = at_row(i, Slope::dvariance);
    l.D_K = at_row(i, Slope::dfactor);
    return l;
  }
};

template <class V, class Pairs>
class Sweep {
 public:
  // `memory` holds the tape, the slots and the gathered results.
  Sweep(const GradientTile& tile, const Pairs& pairs)
      : tile_(tile),
        pairs_(pairs),
        tape_(static_cast<Step<V>*>(tile.workspace)),
        adjoints_(reinterpret_cast<Adjoint<V>*>(tape_ + tile.program.size)),
        slots_(reinterpret_cast<State<V>*>(adjoints_ + tile.program.slots)),
        results_(reinterpret_cast<V*>(slots_ + tile.program.slots)) {}

  // Derivatives in results(), of pairs that start with this K.
  void run(V K) {
    for (int s = 0; s < tile_.program.slots; ++s)
      adjoints_[s] = Adjoint<V>{}, slots_[s] = State<V>{};
    for (int n = 0; n < tile_.results; ++n) results_[n] = V{};
    slots_[0].K = K;
    for (int i = 0; i < tile_.program.size; ++i) forward(i, tile_.program.ops[i]);
    const Knob* knob = tile_.knobs + tile_.knob_count;
    for (int i = tile_.program.size - 1; i >= 0; --i) {
      V by[4] = {};  // the derivatives by a, b, e, f
      backward(i, tile_.program.ops[i], by);
      for (; knob != tile_.knobs && knob[-1].op == i; --knob)
        for (int k = 0; k < 4; ++k) results_[knob[-1].result] += knob[-1].slope[k] * by[k];
    }
    V* const inputs = results_ + tile_.results - 3;
    inputs[0] = adjoints_[0].K;
    inputs[1] = adjoints_[0].row;
    inputs[2] = adjoints_[0].col;
  }
  V result(int n) const { return results_[n]; }

 private:
  void forward(int i, const Op& op) {
    State<V>& s = slots_[op.slot];
    Step<V>& step = tape_[i];
    step.K = s.K;
    step.t = s.t;
    if (op.kind == OpKind::affine) {
      op.constants.affine().apply<true>(s.K, s.t);
    } else if (of_two_slots(op.kind)) {
      step.local.E = slots_[op.other].K;
      step.local.D = slots_[op.other].t;
      combine(op.kind, s.K, s.t, step.local.E, step.local.D);
    } else if (op.kind != OpKind::emit && acts(op.pointwise)) {
      visit_pointwise<double>(op.pointwise, op.constants,
                              [&](const auto& phi) __attribute__((always_inline)) {
                                step.local = pairs_.pointwise(phi, i, step.K);
                              });
      s.K = step.local.E;
      s.t = step.local.D * s.t;
    }
  }

  // The slot's adjoint after the op becomes the one before it.
  void backward(int i, const Op& op, V* by) {
    Adjoint<V>& g = adjoints_[op.slot];
    if (op.kind == OpKind::affine) {
      back_affine(i, op.constants.affine(), g, by);
    } else if (op.kind == OpKind::emit) {
      back_emit(i, op.constants.affine(), g, by);
    } else if (op.kind == OpKind::copy) {
      const Adjoint<V> moved = g;
      g = Adjoint<V>{};
      add(adjoints_[op.other], moved);
    } else if (op.kind == OpKind::add) {
      add(adjoints_[op.other], Adjoint<V>(g));
    } else if (op.kind == OpKind::multiply) {
      const Step<V>& s = tape_[i];
      const Adjoint<V> after = g;
      g = factor(after, s.local.E, s.local.D, i, Slope::f0);
      add(adjoints_[op.other], factor(after, s.K, s.t, i, Slope::q));
    } else if (acts(op.pointwise)) {
      back_pointwise(i, g);
    }
  }

  void back_affine(int i, const Affine<double>& map, Adjoint<V>& g, V* by) {
    const Step<V>& s = tape_[i];
    by[0] = g.K * s.K + g.t * s.t + g.row * pairs_.at_row(i, Slope::q) +
            g.col * pairs_.at_col(i, Slope::q);
    by[1] = g.K + g.row + g.col;
    by[2] = g.t * s.K;
    by[3] = g.t;
    g = {map.a * g.K + map.e * g.t, map.a * g.t, map.a * g.row, map.a * g.col};
  }

  void back_emit(int i, const Affine<double>& map, Adjoint<V>& g, V* by) {
    const Step<V>& s = tape_[i];
    by[0] = tile_.ntk ? s.t : s.K;
    by[tile_.ntk ? 3 : 1] = V{} + 1.0;
    if (!tile_.ntk) {
      g.K += map.a;
      return;
    }
    by[2] = s.K;
    g.K += map.e;
    g.t += map.a;
  }

  void back_pointwise(int i, Adjoint<V>& g) {
    const Local<V>& l = tape_[i].local;
    const V u = g.t * tape_[i].t;
    const V row = g.row * pairs_.at_row(i, Slope::dvariance),
            col = g.col * pairs_.at_col(i, Slope::dvariance);
    g = {g.K * l.E_K + u * l.D_K, g.t * l.D, row + g.K * l.E_row + u * l.D_row,
         col + g.K * l.E_col + u * l.D_col};
  }

  // The adjoint of one factor of a product, from K, T and the variances of the other one.
  Adjoint<V> factor(const Adjoint<V>& g, V K, V t, int i, Slope q) const {
    return {g.K * K + g.t * t, g.t * K, g.row * pairs_.at_row(i, q), g.col * pairs_.at_col(i, q)};
  }

  static void add(Adjoint<V>& to, const Adjoint<V>& g) {
    to = {to.K + g.K, to.t + g.t, to.row + g.row, to.col + g.col};
  }

  const GradientTile& tile_;
  const Pairs pairs_;
  Step<V>* const tape_;
  Adjoint<V>* const adjoints_;
  State<V>* const slots_;
  V* const results_;
};

// The groups of pairs of a tile, and the pairs in them that are a point with itself, one after
// another.
class GradientRun {
 public:
  explicit GradientRun(const GradientTile& tile) : tile_(tile) {
    for (int i = 0; i < tile.program.size; ++i) {
      const Op& op = tile.program.ops[i];
      draws_anew_ |= op.kind == OpKind::pointwise && draws_anew(op.pointwise);
    }
  }

  void run() const {
    for (std::int64_t i = 0; i < tile_.rows; ++i)
      for (std::int64_t j = 0; j < tile_.cols; j += kGroup) run_group(i, j);
  }

 private:
  static constexpr std::int64_t kGroup = kLanes<double>;
  const PointsView<double>& rows() const { return tile_.row_points.points; }
  const PointsView<double>& cols() const { return tile_.col_points.points; }

  void run_group(std::int64_t i, std::int64_t j) const {
    const std::int64_t left = tile_.cols - j, count = left < kGroup ? left : kGroup;
    const std::int64_t row = tile_.row + i, col = tile_.col + j, at = i * tile_.stride + j;
    // All pairs of the group as if they were different points.
    double K[kGroup] = {};
    bool same[kGroup] = {};
    for (std::int64_t l = 0; l < count; ++l) K[l] = start(i, j + l, same[l]);
    Sweep<DoubleV, PairGroup<DoubleV>> sweep(tile_, {tile_.row_points, tile_.col_points, row, col});
    sweep.run(load(K));
    for (int n = 0; n < tile_.results; ++n)
      if (tile_.out[n]) store_columns(tile_.out[n] + at, sweep.result(n), count);
    // Those that are not.
    for (std::int64_t l = 0; l < count; ++l) {
      if (!same[l]) continue;
      Sweep<double, SamePoint> diagonal(tile_, {tile_.row_points, row});
      diagonal.run(rows().root[row] * rows().root[row]);
      for (int n = 0; n < tile_.results; ++n)
        if (tile_.out[n]) tile_.out[n][at + l] = diagonal.result(n);
    }
  }

  // The pair's K before the first op; is it the same point twice?
  double start(std::int64_t i, std::int64_t j, bool& same) const {
    const std::int64_t row = tile_.row + i, col = tile_.col + j, width = rows().width;
    const double dot = tile_.dot[i * tile_.dot_stride + j], r = rows().root[row],
                 c = cols().root[col];
    double defect = 1 - dot;
    if (defect < kNear)
      defect = half_squared_distance(rows().unit + row * width, cols().unit + col * width, width);
    const bool itself = rows().unit == cols().unit && row == col;
    same = itself || (!draws_anew_ && r == c && (defect == 0 || r == 0));
    return r * c * (1 - defect);
  }

  const GradientTile& tile_;
  bool draws_anew_ = false;  // are equal points apart in one of the ops
};

}  // namespace
}  // namespace ntk
