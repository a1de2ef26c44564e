// The hot path: a 3x3 convolution with zero padding and stride 1 on one plane, in place, with what follows it applied
// before the sums leave the registers. Two rows at a time share their common vertical sum; horizontally the window
// slides. A line buffer keeps the old content of the row above.
#pragma once

#include <iterator>

#include "plane.h"

namespace ntk {
namespace {

template <class T>
struct Lines {
  T *k, *t;       // line buffers of the row above, zero at the start
  const T* zero;  // a row of zeros
};

// Column sums of one field at column c for kRows rows; moves the last of these rows into the line buffer.
template <int kRows, class T>
NTK_HD Pack<typename Vector<T>::type, kRows> column_sums(T* above, const T* row, std::int64_t pitch, const T* below) {
  const auto up = load(above), first = load(row), down = load(below);
  if constexpr (kRows == 2) {
    const auto second = load(row + pitch), common = first + second;
    store(above, second);
    return {{up + common, common + down}};
  } else {
    store(above, first);
    return {{up + first + down}};
  }
}

// The window that slides along kRows rows of one field: sums of the columns c - 1, c and c + 1.
template <class T, int kRows>
struct SlidingSum {
  using P = Pack<typename Vector<T>::type, kRows>;
  T *above, *row;
  const T* below;
  std::int64_t pitch;
  P here, pair;  // column c; columns c - 1 and c

  NTK_HD SlidingSum(T* above, T* row, const T* below, std::int64_t pitch)
      : above(above), row(row), below(below), pitch(pitch) {
    here = pair = column_sums<kRows>(above, row, pitch, below);
  }
  NTK_HD P next(std::int64_t at) const { return column_sums<kRows>(above + at, row + at, pitch, below + at); }
  NTK_HD P slide(const P& next) {
    const P sum = pair + next;
    pair = here + next;
    here = next;
    return sum;
  }
  NTK_HD void put(std::int64_t at, const P& value) {
    for (int n = 0; n < kRows; ++n) store(row + n * pitch + at, value.v[n]);
  }
};

// kRows rows from row r on: K and T <- post(column, window sum of K, window sum of T).
template <class T, bool kNtk, int kRows, class Post>
NTK_HD void conv3_rows(const Plane<T>& plane, int r, const Lines<T>& lines, const Post& post) {
  using P = Pack<typename Vector<T>::type, kRows>;
  constexpr int L = kLanes<T>;
  const int cols = plane.cols();
  const std::int64_t pitch = std::int64_t(cols) * L;
  const bool last = r + kRows == plane.rows();
  T *const k = plane.k + r * pitch, *const t = plane.t + r * pitch;
  SlidingSum<T, kRows> sum_k(lines.k, k, last ? lines.zero : k + kRows * pitch, pitch);
  SlidingSum<T, kRows> sum_t(lines.t, t, last ? lines.zero : t + kRows * pitch, pitch);
  const auto row = post.row(plane, r);
  for (int c = 0; c + 1 < cols; ++c) {
    P new_k = sum_k.slide(sum_k.next((c + 1) * L)), new_t{};
    if (kNtk) new_t = sum_t.slide(sum_t.next((c + 1) * L));
    row.apply(c, new_k, new_t);
    sum_k.put(c * L, new_k);
    if (kNtk) sum_t.put(c * L, new_t);
  }
  P new_k = sum_k.pair, new_t = sum_t.pair;
  row.apply(cols - 1, new_k, new_t);
  sum_k.put((cols - 1) * L, new_k);
  if (kNtk) sum_t.put((cols - 1) * L, new_t);
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
  template <class P>
  NTK_HD void apply(int, P& k, P& t) const {
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
    T half;                                   // kappa0's 1/2, times a/9 where T' does not hold it yet
    T kappa0[std::size(Coefficients<T>::a)];  // A(y) times half
    const T *row, *col;                       // both features of the row's first pixel
    std::int64_t row_pitch, col_pitch;        // of image rows

    template <class V, int n>
    NTK_HD void apply(int c, Pack<V, n>& k, Pack<V, n>& t) const {
      using P = Pack<V, n>;
      const T *mine = row + 2 * c, *theirs = col + 2 * c * kImageLanes<T>;
      P inverse = load_pack<n>(theirs, col_pitch), root = load_pack<n>(theirs + kImageLanes<T>, col_pitch);
      for (int i = 0; i < n; ++i) inverse.v[i] *= mine[i * row_pitch], root.v[i] *= mine[i * row_pitch + 1];
      if (kNtk) t = kBias ? scale * (k + t) + bias : k + t;
      if (kBias) k = scale * k + bias;
      const P corr = k * inverse, y = T(1) - (kPositive ? corr : abs(corr)), r = sqrt(abs(y));
      const P near = kPositive ? T(1) - y : max(corr, T(0));
      k = root * (y * r * Fit<T>::C(y) + near);
      if (!kNtk) return;
      const P u = r * horner(kappa0, y);
      t = (kPositive ? half - u : if_negative(corr, u, half - u)) * t;
    }
  };

  NTK_HD Row row(const Plane<T>& plane, int r) const {
    const std::int64_t p = std::int64_t(plane.row0() + r) * plane.w + plane.col0();
    const std::int64_t q = p + std::int64_t(plane.dh) * plane.w + plane.dw;
    const T *row = tables.row + tables.row_offset[number] + 2 * p, *col = tables.col + tables.col_offset[number];
    Row out{scale,
            bias,
            kBias ? T(0.5) : T(0.5) * scale,
            {},
            row,
            col + 2 * q * kImageLanes<T>,
            2 * plane.w,
            2 * plane.w * kImageLanes<T>};
    for (std::size_t k = 0; k < std::size(Coefficients<T>::a); ++k) out.kappa0[k] = out.half * Coefficients<T>::a[k];
    return out;
  }
};

}  // namespace
}  // namespace ntk
