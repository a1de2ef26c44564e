// The hot path: a 3x3 convolution with zero padding and stride 1 on one plane, in place, with what follows it applied
// before the sums leave the registers. Two rows at a time share their common vertical sum; horizontally the window
// slides. A line buffer keeps the old content of the row above.
#pragma once

#include "plane.h"

namespace ntk {
namespace {

template <class T>
struct Lines {
  T *k, *t;       // line buffers of the row above, zero at the start
  const T* zero;  // a row of zeros
};

// Column sums of one field at column c for kRows rows; moves the last of these rows into the line buffer.
template <class T, int kRows, class V>
NTK_HD void column_sums(T* above, const T* first, const T* second, const T* below, std::int64_t at, V* sums) {
  const V up = load(above + at), a = load(first + at), down = load(below + at);
  if (kRows == 2) {
    const V b = load(second + at), common = a + b;
    sums[0] = up + common;
    sums[kRows - 1] = common + down;
    store(above + at, b);
  } else {
    sums[0] = up + a + down;
    store(above + at, a);
  }
}

// kRows rows from row r on: K and T <- post(row, column, window sum of K, window sum of T).
template <class T, bool kNtk, int kRows, class Post>
NTK_HD void conv3_rows(const Plane<T>& plane, int r, const Lines<T>& lines, const Post& post) {
  using V = typename Vector<T>::type;
  constexpr int L = kLanes<T>;
  const int cols = plane.cols();
  const std::int64_t pitch = std::int64_t(cols) * L;
  const bool last = r + kRows == plane.rows();
  T *const k = plane.k + r * pitch, *const t = plane.t + r * pitch;
  const T *const below_k = last ? lines.zero : k + kRows * pitch, *const below_t = last ? lines.zero : t + kRows * pitch;
  V here_k[kRows], pair_k[kRows], next_k[kRows], here_t[kRows] = {}, pair_t[kRows] = {}, next_t[kRows] = {};
  column_sums<T, kRows>(lines.k, k, k + pitch, below_k, 0, here_k);
  if (kNtk) column_sums<T, kRows>(lines.t, t, t + pitch, below_t, 0, here_t);
  for (int n = 0; n < kRows; ++n) pair_k[n] = here_k[n], pair_t[n] = here_t[n];
  const auto row = post.row(plane, r);
  const auto finish = [&](int c) __attribute__((always_inline)) {
    for (int n = 0; n < kRows; ++n) {
      V sum_k = pair_k[n] + next_k[n], sum_t = pair_t[n] + next_t[n];
      row.apply(n, c, sum_k, sum_t);
      store(k + n * pitch + c * L, sum_k);
      if (kNtk) store(t + n * pitch + c * L, sum_t);
      pair_k[n] = here_k[n] + next_k[n], here_k[n] = next_k[n];
      if (kNtk) pair_t[n] = here_t[n] + next_t[n], here_t[n] = next_t[n];
    }
  };
  for (int c = 0; c + 1 < cols; ++c) {
    column_sums<T, kRows>(lines.k, k, k + pitch, below_k, (c + 1) * L, next_k);
    if (kNtk) column_sums<T, kRows>(lines.t, t, t + pitch, below_t, (c + 1) * L, next_t);
    finish(c);
  }
  for (int n = 0; n < kRows; ++n) next_k[n] = next_t[n] = V{};
  finish(cols - 1);
}

template <class T, bool kNtk, class Post>
__attribute__((noinline)) void conv3(const Plane<T>& plane, const Lines<T>& lines, const Post& post) {
  for (std::int64_t i = 0; i < std::int64_t(plane.cols()) * kLanes<T>; ++i) lines.k[i] = lines.t[i] = 0;
  int r = 0;
  for (; r + 1 < plane.rows(); r += 2) conv3_rows<T, kNtk, 2>(plane, r, lines, post);
  if (r < plane.rows()) conv3_rows<T, kNtk, 1>(plane, r, lines, post);
}

// Nothing follows but the layer's own affine map.
template <class T, bool kNtk>
struct AffinePost {
  const PlaneOp* op;
  const AffinePost& row(const Plane<T>&, int) const { return *this; }
  template <class V>
  NTK_HD void apply(int, int, V& k, V& t) const {
    conv_affine<T, kNtk>(*op, k, t);
  }
};

// ReLU of the convolution in the NTK parameterization, from the window sums S_K, S_T:
//   K' = a/9 S_K + b,  T' = a/9 (S_T + S_K) + b,  K <- sqrt(qq')/2 kappa1(c),  T <- kappa0(c)/2 T'.
// Without bias the row's table already holds a/9 / sqrt(q), and sqrt(q')/2 in any case. kPositive: K' >= 0 is known.
template <class T, bool kNtk, bool kPositive, bool kBias>
struct ReluPost {
  T scale, bias;  // a/9, b
  Tables<T> tables;
  int number;

  struct Row {
    T scale, bias;
    const T *row0, *row1, *col0, *col1;  // features at the row's first pixel
    std::int64_t row_pitch, col_pitch;   // of image rows

    template <class V>
    NTK_HD void apply(int n, int c, V& k, V& t) const {
      const std::int64_t p = n * row_pitch + c, q = n * col_pitch + c * kImageLanes<T>;
      const V inverse = row0[p] * load(col0 + q), root = row1[p] * load(col1 + q);
      if (kNtk) t = scale * (k + t);
      if (kBias) {
        if (kNtk) t += bias;
        k = scale * k + bias;
      }
      const V corr = k * inverse, y = kPositive ? T(1) - corr : T(1) - abs(corr), r = sqrt(abs(y));
      const V u = r * Fit<T>::A(y), m = y * r * Fit<T>::C(y);
      if (kPositive) {
        k = root * (corr + m);
        if (kNtk) t *= T(0.5) - T(0.5) * u;
      } else {
        k = root * (max(corr, V{}) + m);
        if (kNtk) t *= T(0.5) * (corr < V{} ? u : T(1) - u);
      }
    }
  };

  NTK_HD Row row(const Plane<T>& plane, int r) const {
    const std::int64_t pixels = std::int64_t(plane.h) * plane.w;
    const std::int64_t p = std::int64_t(plane.row0() + r) * plane.w + plane.col0(), q = p + std::int64_t(plane.dh) * plane.w + plane.dw;
    const T *row = tables.row + tables.row_offset[number] + p, *col = tables.col + tables.col_offset[number] + q * kImageLanes<T>;
    return {scale, bias, row, row + pixels, col, col + pixels * kImageLanes<T>, plane.w, plane.w * kImageLanes<T>};
  }
};

}  // namespace
}  // namespace ntk
