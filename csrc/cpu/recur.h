// Recurrences along positions: of a pair's K and T those of states that go on from position to
// position.
#pragma once

#include "../program/full_program.h"
#include "pointwise.h"

namespace ntk {
namespace {

// K(p, p') <- K(p, p') + w E, T(p, p') <- T(p, p') + w (E + D T), E, D and T of (p - 1, p' - 1), where
// both positions are in use, and 0 elsewhere. E and D follow from the states' variances at p - 1 and
// p' - 1, whose features stand at p and p'.
template <class T, bool kNtk>
class Recurrence {
 public:
  using V = typename Vector<T>::type;
  static constexpr int L = kLanes<T>;

  // Features of the row's and of the column's sample, [3][pitch].
  Recurrence(const FullOp& op, const T* rows, const T* cols, std::int64_t pitch)
      : op_(op), rows_(rows), cols_(cols), pitch_(pitch), w_(T(weight_of_states(op))) {}

  // Row p over `cols` positions; the row before lies a pitch before it. `e`, `d`: room for a row.
  void row(int p, int cols, T* k, T* t, T* e, T* d) const {
    move(p, cols, k - pitch_, e);
    if (kNtk) move(p, cols, t - pitch_, d);
    const V first = splat(rows_[p]), second = splat(rows_[pitch_ + p]);
    const auto of_row = [&](int which, std::int64_t)
                            __attribute__((always_inline)) { return which ? second : first; };
    const auto of_col = [&](int which, std::int64_t i) __attribute__((always_inline)) {
      return load(cols_ + which * pitch_ + i * L);
    };
    visit_pointwise<T>(
        op_.pointwise, op_.constants, [&](const auto& phi) __attribute__((always_inline)) {
          pointwise_pairs<T, kNtk, true>(phi, (cols + L - 1) / L, of_row, of_col, e, d);
        });
    const V in_use = splat(rows_[2 * pitch_ + p]);
    for (int q = 0; q < cols; q += L) {
      const V both = in_use * load(cols_ + 2 * pitch_ + q), E = load(e + q);
      store(k + q, both * (load(k + q) + w_ * E));
      if (kNtk) store(t + q, both * (load(t + q) + w_ * (E + load(d + q))));
    }
  }

  // The pairs p = p' alone, one after another.
  void chain(int cols, T* k, T* t) const {
    visit_pointwise<T>(op_.pointwise, op_.constants, [&](const auto& phi) {
      T K = 0, tangent = 0;
      for (int p = 0; p < cols; ++p) {
        const auto side = [this, p](const T* f) {
          return [this, p, f](int which) { return f[which * pitch_ + p]; };
        };
        T E, D;
        pair_of(phi, K, side(rows_), side(cols_), 0, E, D);
        const T both = rows_[2 * pitch_ + p] * cols_[2 * pitch_ + p];
        K = both * (k[p] + w_ * E);
        k[p] = K;
        if (!kNtk) continue;
        tangent = both * (t[p] + w_ * (E + D * tangent));
        t[p] = tangent;
      }
    });
  }

 private:
  // States before row p: those of the row before, one position on; 0 before the first.
  static void move(int p, int cols, const T* before, T* to) {
    to[0] = 0;
    for (int q = 1; q < cols; ++q) to[q] = p > 0 ? before[q - 1] : T(0);
  }

  const FullOp& op_;
  const T *rows_, *cols_;
  const std::int64_t pitch_;
  const T w_;
};

}  // namespace
}  // namespace ntk
