// Products of small dense matrices, C <- A B, row by row: blocks of C in registers, and a panel of B
// side by side in a scratch of its own.
#pragma once

#include "tile.h"

namespace ntk {
namespace {

// A block of C: rows x vectors.
constexpr int kBlockRows = NTK_VECTOR_BYTES == 64 ? 8 : 4, kBlockVectors = 3;

// Numbers of the scratch for an inner size.
template <class T>
constexpr std::int64_t panel_size(std::int64_t inner) {
  return kBlockVectors * kLanes<T> * inner;
}

template <class T>
struct Product {
  const T *a, *b;
  T* c;
  std::int64_t stride;          // of the rows of B and C
  std::int64_t a_row, a_inner;  // between numbers of A
  int rows, inner, cols;
  T* panel;
};

// kRows rows from number i on, of the kVectors vectors of columns that the panel holds.
template <int kRows, int kVectors, class T>
NTK_HD void multiply_block(const Product<T>& m, int i, int column) {
  using V = typename Vector<T>::type;
  constexpr int L = kLanes<T>;
  V sum[kRows][kVectors] = {};
  const T* const a = m.a + i * m.a_row;
  const T* b = m.panel;
  for (int k = 0; k < m.inner; ++k, b += kVectors * L) {
    V of_b[kVectors];
    for (int v = 0; v < kVectors; ++v) of_b[v] = load(b + v * L);
    for (int r = 0; r < kRows; ++r) {
      const V of_a = splat(a[r * m.a_row + k * m.a_inner]);
      for (int v = 0; v < kVectors; ++v) sum[r][v] += of_a * of_b[v];
    }
  }
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < kVectors; ++v) store(m.c + (i + r) * m.stride + column + v * L, sum[r][v]);
}

template <int kVectors, class T>
void multiply_panel(const Product<T>& m, int column) {
  constexpr int L = kLanes<T>;
  for (int k = 0; k < m.inner; ++k)
    for (int v = 0; v < kVectors; ++v)
      store(m.panel + (k * kVectors + v) * L, load(m.b + k * m.stride + column + v * L));
  int i = 0;
  for (; i + kBlockRows <= m.rows; i += kBlockRows)
    multiply_block<kBlockRows, kVectors>(m, i, column);
  for (; i + 2 <= m.rows; i += 2) multiply_block<2, kVectors>(m, i, column);
  for (; i < m.rows; ++i) multiply_block<1, kVectors>(m, i, column);
}

// Whole vectors of columns are read and written.
template <class T>
void multiply(const Product<T>& m) {
  constexpr int L = kLanes<T>;
  int column = 0;
  for (; column + (kBlockVectors - 1) * L < m.cols; column += kBlockVectors * L)
    multiply_panel<kBlockVectors>(m, column);
  for (; column + L < m.cols; column += 2 * L) multiply_panel<2>(m, column);
  for (; column < m.cols; column += L) multiply_panel<1>(m, column);
}

// The same where most of A, whose rows lie as those of C do, is 0.
template <class T>
void multiply_sparse(const Product<T>& m) {
  using V = typename Vector<T>::type;
  constexpr int L = kLanes<T>;
  for (int i = 0; i < m.rows; ++i) {
    const T* const a = m.a + i * m.stride;
    T* const c = m.c + i * m.stride;
    for (int q = 0; q < m.cols; q += L) store(c + q, V{});
    for (int k = 0; k < m.inner; ++k) {
      if (a[k] == 0) continue;
      const T* const b = m.b + k * m.stride;
      for (int q = 0; q < m.cols; q += L) store(c + q, load(c + q) + a[k] * load(b + q));
    }
  }
}

}  // namespace
}  // namespace ntk
