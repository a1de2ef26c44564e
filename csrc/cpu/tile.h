// What all evaluations of a tile share: guarded stores, the exact diagonal, the mirrored half.
// Anonymous namespace: this code is compiled once per instruction set, and no copy may serve
// another's calls.
#pragma once

// Before dual.h: built-in vectors have no namespace, so their functions must be declared first.
#include "simd.h"

#include "../backend.h"

namespace ntk {
namespace {

// Stores the lanes that lie left of the tile's last column.
template <class T, class V>
NTK_HD void store_columns(T* p, V v, std::int64_t count) {
  if (count >= kLanes<T>) {
    store(p, v);
  } else {
    for (int l = 0; l < count; ++l) p[l] = v[l];
  }
}

// First column of row i that is computed: all of them, or in a diagonal tile those right of the
// diagonal's group.
template <class T>
std::int64_t first_column(const Tile<T>& tile, std::int64_t i, std::int64_t group) {
  return tile.diagonal ? i / group * group : 0;
}

// A square of kLanes x kLanes elements by log2(kLanes) perfect shuffles of its rows.
template <class T>
NTK_HD void transpose_square(const T* src, T* dst, std::int64_t stride) {
  using V = typename Vector<T>::type;
  constexpr int n = kLanes<T>;
  V a[n], b[n];
  for (int i = 0; i < n; ++i) a[i] = load(src + i * stride);
  for (int step = 1; step < n; step *= 2) {
    for (int i = 0; i < n / 2; ++i) {
      b[2 * i] = interleave<T, false>(a[i], a[i + n / 2]);
      b[2 * i + 1] = interleave<T, true>(a[i], a[i + n / 2]);
    }
    for (int i = 0; i < n; ++i) a[i] = b[i];
  }
  for (int i = 0; i < n; ++i) store(dst + i * stride, a[i]);
}

// dst[j][i] = src[i][j], square by square.
template <class T>
void transpose(const T* src, T* dst, std::int64_t stride, std::int64_t rows, std::int64_t cols) {
  constexpr std::int64_t n = kLanes<T>;
  for (std::int64_t j0 = 0; j0 < cols; j0 += n)
    for (std::int64_t i0 = 0; i0 < rows; i0 += n) {
      if (i0 + n <= rows && j0 + n <= cols) {
        transpose_square(src + i0 * stride + j0, dst + j0 * stride + i0, stride);
        continue;
      }
      for (std::int64_t j = j0; j < cols && j < j0 + n; ++j)
        for (std::int64_t i = i0; i < rows && i < i0 + n; ++i)
          dst[j * stride + i] = src[i * stride + j];
    }
}

// Lower triangle from the upper one; the diagonal from the points' own values, where the
// correlation is exactly 1.
template <class T>
void complete_diagonal_tile(const Tile<T>& tile, T* out, const double* diagonal) {
  for (std::int64_t i = 0; i < tile.rows; ++i) {
    out[i * tile.stride + i] = T(diagonal[tile.row + i]);
    for (std::int64_t j = 0; j < i; ++j) out[i * tile.stride + j] = out[j * tile.stride + i];
  }
}

template <class T>
void finish(const Tile<T>& tile) {
  for (int o = 0; o < tile.program.outputs; ++o) {
    T* const outs[2] = {tile.nngp[o], tile.ntk[o]};
    T* const mirrors[2] = {tile.nngp_mirror[o], tile.ntk_mirror[o]};
    const double* const diagonals[2] = {tile.row_points.nngp, tile.row_points.ntk};
    for (int k = 0; k < 2; ++k) {
      if (outs[k] && tile.diagonal)
        complete_diagonal_tile(tile, outs[k], diagonals[k] + o * tile.row_points.size);
      if (outs[k] && mirrors[k]) transpose(outs[k], mirrors[k], tile.stride, tile.rows, tile.cols);
    }
  }
}

}  // namespace
}  // namespace ntk
