// ReLU networks in registers: relu_chain.h on vectors of columns.
#pragma once

#include "tile.h"  // before relu_chain.h, as for dual.h

#include "../tile_chain.h"

namespace ntk {
namespace {

// half_squared_distance() for the lanes below kNear.
template <class T, class V>
__attribute__((noinline)) V refine(V y, const T* row, const T* cols, std::int64_t width,
                                   std::int64_t lanes) {
  for (int l = 0; l < kLanes<T> && l < lanes; ++l) {
    if (!(y[l] < T(kNear))) continue;
    const T* col = cols + l * width;
    V sum = V{};
    std::int64_t k = 0;
    for (; k + kLanes<T> <= width; k += kLanes<T>) {
      const V d = load(row + k) - load(col + k);
      sum += d * d;
    }
    T total = 0;
    for (int m = 0; m < kLanes<T>; ++m) total += sum[m];
    for (; k < width; ++k) total += (row[k] - col[k]) * (row[k] - col[k]);
    y[l] = total / 2;
  }
  return y;
}

template <class T, bool kNtk, class P>
NTK_HD void load_affine_step(const ChainAffine<T>& s, std::int64_t i, std::int64_t j, P& y, P& t) {
  constexpr int n = sizeof(P) / sizeof(typename Vector<T>::type);
  const P alpha = load_pack<n>(s.col_alpha + j, kLanes<T>),
          beta = load_pack<n>(s.col_beta + j, kLanes<T>);
  affine_step<T, kNtk>(s.phi, s.row_alpha[i], s.row_beta[i], alpha, beta, y, t);
}

template <class T, bool kNtk, class V>
NTK_HD void emit_step(const ChainEmit<T>& s, V root, V y, V t, std::int64_t at,
                      std::int64_t count) {
  const V K = root * (T(1) - y);
  if (s.nngp) store_columns(s.nngp + at, s.map.nngp(K), count);
  if (kNtk && s.ntk) store_columns(s.ntk + at, s.map.ntk(K, root * t), count);
}

// n vectors of columns of row i, from column j on, through all layers.
template <class T, bool kNtk, int n>
NTK_HD void chain_group(const Tile<T>& tile, const Chain<T>& chain, std::int64_t i,
                        std::int64_t j) {
  using V = typename Vector<T>::type;
  using P = Pack<V, n>;
  constexpr int L = kLanes<T>;
  const std::int64_t row = tile.row + i, col = tile.col + j, width = tile.row_points.width;
  // The pairs' correlations.
  P y = T(1) - load_pack<n>(tile.dot + i * tile.dot_stride + j, L);
  for (int u = 0; u < n; ++u)
    if (any_below(y.v[u], T(kNear)) && tile.row_points.unit != nullptr)
      y.v[u] = refine(y.v[u], tile.row_points.unit + row * width,
                      tile.col_points.unit + (col + u * L) * width, width, tile.cols - j - u * L);
  P t = chain.eps * (T(1) - y);
  // The layers, and what is put out after them.
  for (const ChainLayer<T>* layer = chain.layers; layer != chain.layers + chain.depth; ++layer) {
    for (int steps = layer->run; steps > 0; --steps, ++layer) plain_relu_step<T, kNtk>(y, t);
    if (layer->affine.bias) load_affine_step<T, kNtk>(layer->affine, row, col, y, t);
    any_relu_step<T, kNtk>(layer->relu, y, t);
    for (int e = 0; e < layer->emit_count; ++e)
      for (int u = 0; u < n; ++u) {
        const V root = load(layer->relu.col_root + col + u * L) *
                       (layer->relu.scale * layer->relu.row_root[row]);
        const std::int64_t c = j + u * L;
        emit_step<T, kNtk>(layer->emits[e], root, y.v[u], t.v[u], i * tile.stride + c,
                           tile.cols - c);
      }
  }
}

template <class T, bool kNtk>
void run_chain(const Tile<T>& tile, const Chain<T>& chain) {
  constexpr int kUnroll = NTK_VECTOR_BYTES == 64 ? 4 : 2;
  constexpr std::int64_t group = kUnroll * kLanes<T>;
  for (std::int64_t i = 0; i < tile.rows; ++i)
    for (std::int64_t j = first_column(tile, i, group); j < tile.cols; j += group)
      chain_group<T, kNtk, kUnroll>(tile, chain, i, j);
}

}  // namespace
}  // namespace ntk
