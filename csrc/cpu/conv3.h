// The hot path: a 3x3 convolution with zero padding and stride 1 on one plane, in place, with what
// follows it applied before the sums leave the registers. Two rows at a time share their common
// vertical sum; horizontally the window slides. A line buffer keeps the old content of the row
// above.
#pragma once

#include "../math/conv_relu.h"
#include "plane.h"

namespace ntk {
namespace {

template <class T>
struct Lines {
  T *k, *t;       // line buffers of the row above, zero at the start
  const T* zero;  // a row of zeros
};

// The window that slides along n rows of one field: sums of the pixels c - 1, c and c + 1 across
// three rows.
template <class T, int n>
struct SlidingSum {
  using P = Pack<typename Vector<T>::type, n>;
  T *above, *row;
  const T* below;
  std::int64_t pitch;
  P here, pair;  // pixel c; pixels c - 1 and c

  NTK_HD SlidingSum(T* above, T* row, const T* below, std::int64_t pitch)
      : above(above), row(row), below(below), pitch(pitch) {
    here = pair = across(0);
  }
  // Sums across the rows at element `at`; moves the last of the rows into the line buffer.
  NTK_HD P across(std::int64_t at) const {
    const auto up = load(above + at), first = load(row + at), down = load(below + at);
    if constexpr (n == 2) {
      const auto second = load(row + pitch + at), common = first + second;
      store(above + at, second);
      return {{up + common, common + down}};
    } else {
      store(above + at, first);
      return {{up + first + down}};
    }
  }
  NTK_HD P slide(const P& next) {
    const P sum = pair + next;
    pair = here + next;
    here = next;
    return sum;
  }
  NTK_HD void put(std::int64_t at, const P& value) {
    for (int i = 0; i < n; ++i) store(row + i * pitch + at, value.v[i]);
  }
};

// n rows from row r on: K and T <- post(column, window sum of K, window sum of T). kZeroT: T is
// zero so far.
template <class T, bool kNtk, bool kZeroT, int n, class Post>
NTK_HD void conv3_rows(const Plane<T>& plane, int r, const Lines<T>& lines, const Post& post) {
  using P = Pack<typename Vector<T>::type, n>;
  constexpr int L = kLanes<T>;
  const int cols = plane.cols();
  const std::int64_t pitch = std::int64_t(cols) * L;
  const bool last = r + n == plane.rows();
  T *const k = plane.k + r * pitch, *const t = plane.t + r * pitch;
  SlidingSum<T, n> sum_k(lines.k, k, last ? lines.zero : k + n * pitch, pitch);
  SlidingSum<T, n> sum_t(lines.t, t, last ? lines.zero : t + n * pitch, pitch);
  const auto row = post.row(r);
  for (int c = 0; c + 1 < cols; ++c) {
    P new_k = sum_k.slide(sum_k.across((c + 1) * L)), new_t{};
    if (kNtk && !kZeroT) new_t = sum_t.slide(sum_t.across((c + 1) * L));
    row.apply(c, new_k, new_t);
    sum_k.put(c * L, new_k);
    if (kNtk) sum_t.put(c * L, new_t);
  }
  P new_k = sum_k.pair, new_t = kZeroT ? P{} : sum_t.pair;
  row.apply(cols - 1, new_k, new_t);
  sum_k.put((cols - 1) * L, new_k);
  if (kNtk) sum_t.put((cols - 1) * L, new_t);
}

template <class T, bool kNtk, bool kZeroT, class Post>
__attribute__((noinline)) void conv3(const Plane<T>& plane, const Lines<T>& lines,
                                     const Post& post) {
  for (std::int64_t i = 0; i < std::int64_t(plane.cols()) * kLanes<T>; ++i)
    lines.k[i] = lines.t[i] = 0;
  int r = 0;
  for (; r + 1 < plane.rows(); r += 2) conv3_rows<T, kNtk, kZeroT, 2>(plane, r, lines, post);
  if (r < plane.rows()) conv3_rows<T, kNtk, kZeroT, 1>(plane, r, lines, post);
}

// Nothing follows but the layer's own affine map.
template <class T, bool kNtk>
struct AffinePost {
  Affine<T> map;
  const AffinePost& row(int) const { return *this; }
  template <class P>
  NTK_HD void apply(int, P& k, P& t) const {
    map.template apply<kNtk>(k, t);
  }
};

// The ReLU that follows a convolution in the NTK parameterization, K' = a/9 S_K + b and
// T' = a/9 (S_T + S_K) + b of the window sums S. The row's table holds a/9 (without bias) and 1/(2
// pi) beside 1/sqrt(q') and sqrt(q').
template <class T, bool kNtk, bool kPositive, bool kBias>
struct ReluPost {
  using B = typename Coefficients<T>::B;
  T scale, bias;           // a/9, b
  T half;                  // kappa0's 1/2, times a/9 where the sums do not hold it yet
  T kappa0[B::size];       // B(c) times half
  const T *mine, *theirs;  // both features of the plane's first pixel pair
  std::int64_t pitch;      // features of a row of the image

  ReluPost(const PlaneOp& op, const Tables<T>& tables, int number, const Plane<T>& plane)
      : scale(T(of_window_sums(op).a)),
        bias(T(of_window_sums(op).b)),
        half(kBias ? T(0.5) : T(0.5) * scale) {
    for (int i = 0; i < B::size; ++i) kappa0[i] = half * B::at(i);
    const std::int64_t p = std::int64_t(plane.row0()) * plane.w + plane.col0();
    const std::int64_t q = p + std::int64_t(plane.dh) * plane.w + plane.dw;
    mine = tables.row + tables.row_offset[number] + 2 * p;
    theirs = tables.col + tables.col_offset[number] + 2 * q * kImageLanes<T>;
    pitch = 2 * std::int64_t(plane.w);
  }

  struct Row {
    const ReluPost& post;
    const T *mine, *theirs;

    template <class V, int n>
    NTK_HD void apply(int c, Pack<V, n>& k, Pack<V, n>& t) const {
      constexpr int N = kImageLanes<T>;
      Pack<V, n> inverse = load_pack<n>(theirs + 2 * c * N, post.pitch * N);
      Pack<V, n> root = load_pack<n>(theirs + (2 * c + 1) * N, post.pitch * N);
      for (int i = 0; i < n; ++i) {
        inverse.v[i] *= mine[2 * c + i * post.pitch];
        root.v[i] *= mine[2 * c + 1 + i * post.pitch];
      }
      if (kNtk) t = kBias ? post.scale * (k + t) + post.bias : k + t;
      if (kBias) k = post.scale * k + post.bias;
      const Pack<V, n> corr = k * inverse, s = sine(corr);
      const Pack<V, n> half_kappa0 =
          kappa0_times<T, kPositive>(post.half, corr, s, [&](int i) { return post.kappa0[i]; });
      k = half_kappa0 * k + root * s;
      if (kNtk) t = half_kappa0 * t;
    }
  };

  NTK_HD Row row(int r) const {
    return {*this, mine + r * pitch, theirs + r * pitch * kImageLanes<T>};
  }
};

}  // namespace
}  // namespace ntk
