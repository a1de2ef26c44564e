// Programs of vectors, a thread for every pair: the 1x1 case, and the heads of image programs.
#pragma once

#include "../chain_steps.h"
#include "../pack.h"

namespace ntk {

// Values that lie side by side in memory, aligned to their whole size: one load or store of the device.
template <class P>
struct alignas(sizeof(P)) Wide {
  P values;
};
template <class P>
NTK_HD P load_wide(const typename Scalar<P>::type* from) {
  return reinterpret_cast<const Wide<P>*>(from)->values;
}
template <class P>
NTK_HD void store_wide(typename Scalar<P>::type* to, const P& values) {
  *reinterpret_cast<Wide<P>*>(to) = {values};
}

// Features of a program's ops for row and column points: [op][2][stride].
template <class T>
struct PairTables {
  const T *row, *col;
  std::int64_t row_stride, col_stride;
};

// Any program on one pair, whose slots start in K and t; emit(output, nngp, ntk) receives what comes out.
template <class T, class Emit>
NTK_HD void run_pair(const Program& program, const PairTables<T>& tables, std::int64_t row, std::int64_t col, T* K,
                     T* t, const Emit& emit) {
  for (int i = 0; i < program.size; ++i) {
    const Op& op = program.ops[i];
    T &k = K[op.slot], &tk = t[op.slot];
    const T a = T(op.p[0]), b = T(op.p[1]), e = T(op.p[2]), f = T(op.p[3]);
    const T *r = tables.row + 2 * i * tables.row_stride + row, *c = tables.col + 2 * i * tables.col_stride + col;
    if (op.kind == OpKind::affine) {
      tk = a * tk + (e * k + f);
      k = a * k + b;
    } else if (op.kind == OpKind::dual) {
      visit_dual<T>(op.dual, op.p, [&](const auto& phi) {
        T E, D;
        phi.pair(k, r[0], r[tables.row_stride], c[0], c[tables.col_stride], E, D);
        k = E, tk *= D;
      });
    } else if (op.kind == OpKind::normalize) {
      k *= r[0] * c[0], tk *= r[0] * c[0];
    } else if (op.kind == OpKind::copy) {
      k = K[op.other], tk = t[op.other];
    } else if (op.kind == OpKind::add) {
      k += K[op.other], tk += t[op.other];
    } else {
      emit(op.other, a * k + b, a * tk + (e * k + f));
    }
  }
}

constexpr int kMostSlots = 64;  // what the binding allows

// Where the result of pair (i, j) of a tile goes, and its mirror image.
template <class T>
struct Sink {
  T* const* nngp;  // per output, or null where not wanted
  T* const* ntk;
  T* const* nngp_mirror;
  T* const* ntk_mirror;
  std::int64_t stride;

  NTK_HD void operator()(int output, std::int64_t i, std::int64_t j, T nngp_value, T ntk_value) const {
    put(nngp[output], nngp_mirror[output], i, j, nngp_value);
    put(ntk[output], ntk_mirror[output], i, j, ntk_value);
  }
  NTK_HD void put(T* out, T* mirror, std::int64_t i, std::int64_t j, T value) const {
    if (out) out[i * stride + j] = value;
    if (out && mirror) mirror[j * stride + i] = value;
  }
  // Columns j + skip and on of a group of neighbours.
  template <int kWide>
  NTK_HD void wide(int output, std::int64_t i, std::int64_t j, int skip, const Pack<T, kWide>& nngp_values,
                   const Pack<T, kWide>& ntk_values) const {
    put(nngp[output], nngp_mirror[output], i, j, skip, nngp_values);
    put(ntk[output], ntk_mirror[output], i, j, skip, ntk_values);
  }
  template <int kWide>
  NTK_HD void put(T* out, T* mirror, std::int64_t i, std::int64_t j, int skip, const Pack<T, kWide>& values) const {
    if (out && skip == 0 && !mirror)
      store_wide(out + i * stride + j, values);
    else
      for (int l = 0; l < kWide; ++l)
        if (l >= skip) put(out, mirror, i, j + l, values.v[l]);
  }
};

// The points' own values, where the correlation is exactly 1.
template <class T>
struct DiagonalOp {
  PointsView<T> points;
  std::int64_t row, rows;
  Sink<T> sink;

  NTK_HD void operator()(std::int64_t n) const {
    const int output = int(n / rows);
    const std::int64_t i = n % rows, at = output * points.size + row + i;
    sink(output, i, i, T(points.nngp[at]), T(points.ntk[at]));
  }
};

// Pair number n of a tile: row n / cols, column n % cols. In a diagonal tile only those right of the diagonal.
template <class T>
struct PairOp {
  Program program;
  PointsView<T> row_points, col_points;
  std::int64_t row, col, cols;
  const T* dot;
  std::int64_t dot_stride;
  bool diagonal;
  Sink<T> sink;

  NTK_HD void operator()(std::int64_t n) const {
    const std::int64_t i = n / cols, j = n % cols;
    if (diagonal && j <= i) return;
    T K[kMostSlots], t[kMostSlots];
    K[0] = row_points.root[row + i] * col_points.root[col + j] * dot[i * dot_stride + j], t[0] = 0;
    const PairTables<T> tables{row_points.table, col_points.table, row_points.stride, col_points.stride};
    run_pair(program, tables, row + i, col + j, K, t,
             [&](int output, T nngp, T ntk) { sink(output, i, j, nngp, ntk); });
  }
};

// A ReLU network (chain_steps.h) on kWide neighbouring columns of a row, in registers. Group number n of a tile: row
// n / groups; a tile of `cols` columns has cols / kWide groups a row.
template <class T, int kWide>
struct ChainPairOp {
  using P = Pack<T, kWide>;
  Chain<T> chain;  // its emits point to the tile's results
  PointsView<T> row_points, col_points;
  std::int64_t row, col, groups;
  const T* dot;
  std::int64_t dot_stride;
  bool diagonal;
  Sink<T> sink;

  NTK_HD void operator()(std::int64_t n) const {
    const std::int64_t i = n / groups, j = n % groups * kWide, r = row + i, c = col + j;
    const std::int64_t left = diagonal ? i + 1 - j : 0;  // columns of the group left of the diagonal
    const int skip = left <= 0 ? 0 : left < kWide ? int(left) : kWide;
    if (skip == kWide) return;
    P y = T(1) - load_wide<P>(dot + i * dot_stride + j);
    for (int l = 0; l < kWide; ++l)
      if (l >= skip && y.v[l] < T(kNear)) y.v[l] = half_squared_distance(r, c + l);
    P t = chain.eps * (T(1) - y);
    int emitted = 0;
    for (const ChainLayer<T>* layer = chain.layers; layer != chain.layers + chain.depth; ++layer) {
      for (int steps = layer->run; steps > 0; --steps, ++layer) plain_relu_step<T, true>(y, t);
      const ChainAffine<T>& s = layer->affine;
      if (s.bias)
        affine_step<T, true>(s.phi, s.row_alpha[r], s.row_beta[r], load_wide<P>(s.col_alpha + c),
                             load_wide<P>(s.col_beta + c), y, t);
      const ChainRelu<T>& relu = layer->relu;
      if (relu.pure && relu.positive)
        plain_relu_step<T, true>(y, t);
      else if (relu.pure)
        relu_step<T, true, true>(relu, y, t);
      else
        relu_step<T, true, false>(relu, y, t);
      for (int e = 0; e < layer->emit_count; ++e, ++emitted) {
        const ChainEmit<T>& out = layer->emits[e];
        const P root = relu.scale * relu.row_root[r] * load_wide<P>(relu.col_root + c), K = root * (T(1) - y);
        sink.wide(out.output, i, j, skip, out.a * K + out.b, out.a * (root * t) + (out.e * K + out.f));
      }
    }
  }

  NTK_HD T half_squared_distance(std::int64_t r, std::int64_t c) const {
    const std::int64_t width = row_points.width;
    const T *u = row_points.unit + r * width, *v = col_points.unit + c * width;
    T sum = 0;
    for (std::int64_t k = 0; k < width; ++k) sum += (u[k] - v[k]) * (u[k] - v[k]);
    return sum / 2;
  }
};

}  // namespace ntk
