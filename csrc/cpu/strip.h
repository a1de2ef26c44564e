// Any program, op by op, on one row against a strip of columns; the slots of a strip stay in L1.
#pragma once

#include "pointwise.h"
#include "tile.h"

namespace ntk {
namespace {

// Slot s of the strip: K in [2s], T in [2s + 1], kStrip values each.
template <class T>
struct Strip {
  T* slots;
  std::int64_t row, col;  // point numbers
  std::int64_t count;     // columns in use
  T* K(int slot) const { return slots + 2 * slot * kStrip; }
  T* Tk(int slot) const { return slots + (2 * slot + 1) * kStrip; }
};

template <class T, bool kNtk>
void apply_affine(const Op& op, const Strip<T>& s) {
  const Affine<T> map = op.constants.affine().as<T>();
  T *K = s.K(op.slot), *t = s.Tk(op.slot);
  for (std::int64_t j = 0; j < s.count; j += kLanes<T>) {
    const auto k = load(K + j);
    if (kNtk) store(t + j, map.ntk(k, load(t + j)));
    store(K + j, map.nngp(k));
  }
}

template <class T, bool kNtk>
void apply_pointwise(const Op& op, int number, const Tile<T>& tile, const Strip<T>& s) {
  const PointsView<T>&rows = tile.row_points, &cols = tile.col_points;
  const T *const of_row = rows.feature(number, 0) + s.row, *const of_col =
                                                               cols.feature(number, 0) + s.col;
  const std::int64_t row_step = rows.stride, col_step = cols.stride;
  const auto row = [=](int k, std::int64_t)
                       __attribute__((always_inline)) { return splat(of_row[k * row_step]); };
  const auto col = [=](int k, std::int64_t i) __attribute__((always_inline)) {
    return load(of_col + k * col_step + i * kLanes<T>);
  };
  const std::int64_t vectors = (s.count + kLanes<T> - 1) / kLanes<T>;
  visit_pointwise<T>(
      op.pointwise, op.constants, [&](const auto& phi) __attribute__((always_inline)) {
        pointwise_pairs<T, kNtk, true>(phi, vectors, row, col, s.K(op.slot), s.Tk(op.slot));
      });
}

template <class T>
void apply_combine(const Op& op, const Strip<T>& s) {
  T *K = s.K(op.slot), *t = s.Tk(op.slot);
  const T *other_K = s.K(op.other), *other_t = s.Tk(op.other);
  for (std::int64_t j = 0; j < kStrip; j += kLanes<T>) {
    auto k = load(K + j), tk = load(t + j);
    combine(op.kind, k, tk, load(other_K + j), load(other_t + j));
    store(K + j, k);
    store(t + j, tk);
  }
}

template <class T, bool kNtk>
void apply_emit(const Op& op, const Tile<T>& tile, const Strip<T>& s, std::int64_t at) {
  const Affine<T> map = op.constants.affine().as<T>();
  T *nngp = tile.nngp[op.other], *ntk = tile.ntk[op.other];
  for (std::int64_t j = 0; j < s.count; j += kLanes<T>) {
    const auto k = load(s.K(op.slot) + j);
    if (nngp) store_columns(nngp + at + j, map.nngp(k), s.count - j);
    if (kNtk && ntk) store_columns(ntk + at + j, map.ntk(k, load(s.Tk(op.slot) + j)), s.count - j);
  }
}

// K = <x, x'>/width, T = 0.
template <class T>
void load_input(const Tile<T>& tile, const Strip<T>& s, const T* dot) {
  const T row = tile.row_points.root[s.row];
  const T* cols = tile.col_points.root + s.col;
  for (std::int64_t j = 0; j < kStrip; j += kLanes<T>) {
    store(s.K(0) + j, row * load(cols + j) * load(dot + j));
    store(s.Tk(0) + j, typename Vector<T>::type{});
  }
}

// The program on one strip; results go `at` elements after the tile's first.
template <class T, bool kNtk>
void run_ops(const Tile<T>& tile, const Strip<T>& s, std::int64_t at) {
  for (int k = 0; k < tile.program.size; ++k) {
    const Op& op = tile.program.ops[k];
    if (op.kind == OpKind::affine) apply_affine<T, kNtk>(op, s);
    if (op.kind == OpKind::pointwise && acts(op.pointwise))
      apply_pointwise<T, kNtk>(op, k, tile, s);
    if (of_two_slots(op.kind)) apply_combine(op, s);
    if (op.kind == OpKind::emit) apply_emit<T, kNtk>(op, tile, s, at);
  }
}

template <class T, bool kNtk>
void run_strips(const Tile<T>& tile) {
  for (std::int64_t i = 0; i < tile.rows; ++i)
    for (std::int64_t j = first_column(tile, i, kStrip); j < tile.cols; j += kStrip) {
      const std::int64_t left = tile.cols - j;
      const Strip<T> s{static_cast<T*>(tile.workspace), tile.row + i, tile.col + j,
                       left < kStrip ? left : kStrip};
      load_input(tile, s, tile.dot + i * tile.dot_stride + j);
      run_ops<T, kNtk>(tile, s, i * tile.stride + j);
    }
}

}  // namespace
}  // namespace ntk
