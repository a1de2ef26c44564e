// One displacement plane: K[p, p + d] and T[p, p + d] for all pixels p with p and p + d in the
// image, a vector of pairs for every pixel; and the plain operations on it.
#pragma once

#include "../program/plane_program.h"
#include "pointwise.h"
#include "tile.h"

namespace ntk {
namespace {

template <class T>
struct Plane {
  T *k, *t;  // [rows][cols][lane]
  int h, w;  // image
  int dh, dw;
  bool alive;  // false where a stride skips this displacement

  int rows() const { return h - (dh < 0 ? -dh : dh); }
  int cols() const { return w - (dw < 0 ? -dw : dw); }
  int row0() const { return dh < 0 ? -dh : 0; }  // first p
  int col0() const { return dw < 0 ? -dw : 0; }
  std::int64_t size() const { return std::int64_t(rows()) * cols() * kLanes<T>; }
};

// The two points' tables for a plane: the row image as scalars, the column images as vectors. In
// self mode (pairs (x, x)) the row image is the column image, lane by lane.
template <class T>
struct Tables {
  const T* row;  // per op at row_offset: [h w][pixel_features]
  const T* col;  // per op at col_offset: [h w][pixel_features][kImageLanes]
  const std::int64_t *row_offset, *col_offset;
};

template <class T, bool kSelf>
struct Features {
  using V = typename Vector<T>::type;
  static constexpr int kStep = kImageLanes<T>;
  const T *row, *col;
  std::int64_t shift;  // p' - p in pixels
  std::int64_t step;   // features of a pixel

  Features(const Tables<T>& tables, int number, const PlaneOp& op, const Plane<T>& plane)
      : row(kSelf ? tables.col + tables.col_offset[number]
                  : tables.row + tables.row_offset[number]),
        col(tables.col + tables.col_offset[number]),
        shift(std::int64_t(plane.dh) * plane.w + plane.dw),
        step(pixel_features(op)) {}
  // Feature number `which`, below 0 of the ops before, of pixel p, and of p'.
  NTK_HD V row_value(int which, std::int64_t p) const {
    const std::int64_t at = p * step + which;
    if (kSelf) return load(row + at * kStep);
    return splat(row[at]);
  }
  NTK_HD V col_value(int which, std::int64_t p) const {
    return load(col + ((p + shift) * step + which) * kStep);
  }
};

// Calls f(i, p) for every pixel of the plane: i counts vectors, p pixels of the image.
template <class T, class F>
NTK_HD void for_pixels(const Plane<T>& plane, F&& f) {
  std::int64_t i = 0;
  for (int r = 0; r < plane.rows(); ++r) {
    const std::int64_t p = std::int64_t(plane.row0() + r) * plane.w + plane.col0();
    for (int c = 0; c < plane.cols(); ++c, ++i) f(i, p + c);
  }
}

template <class T, bool kNtk, bool kSelf>
void plane_pointwise(const PlaneOp& op, int number, const Tables<T>& tables, Plane<T>& plane) {
  const Features<T, kSelf> f(tables, number, op, plane);
  visit_pointwise<T>(
      op.pointwise, op.constants, [&](const auto& phi) __attribute__((always_inline)) {
        const int cols = plane.cols();
        for (int r = 0; r < plane.rows(); ++r) {
          const std::int64_t first = std::int64_t(plane.row0() + r) * plane.w + plane.col0(),
                             at = std::int64_t(r) * cols * kLanes<T>;
          const auto row = [&](int k, std::int64_t i)
                               __attribute__((always_inline)) { return f.row_value(k, first + i); };
          const auto col = [&](int k, std::int64_t i)
                               __attribute__((always_inline)) { return f.col_value(k, first + i); };
          pointwise_pairs<T, kNtk, false>(phi, cols, row, col, plane.k + at, plane.t + at);
        }
      });
}

template <class T>
void plane_combine(PlaneOpKind kind, Plane<T>& to, const Plane<T>& from) {
  for (std::int64_t i = 0; i < from.size(); i += kLanes<T>) {
    auto k = load(to.k + i), t = load(to.t + i);
    combine(kind, k, t, load(from.k + i), load(from.t + i));
    store(to.k + i, k);
    store(to.t + i, t);
  }
}

// The pixels x, x + step, … of a window that lie in [0, n): the first of them, and where they end.
inline int first_inside(int x, int step) { return x < 0 ? x + (step - 1 - x) / step * step : x; }
inline int end_inside(int x, int window, int step, int n) {
  const int last = x + (window - 1) * step;
  return last < n ? last + 1 : n;
}

// Any filter, stride, dilation and zero padding: out(o) = sum over the window of in(s o + k - low).
template <class T, bool kNtk>
void plane_conv(const PlaneOp& op, const Plane<T>& in, Plane<T>& out) {
  using V = typename Vector<T>::type;
  const Affine<T> map = of_window_sums(op).as<T>();
  std::int64_t to = 0;
  for (int o = out.row0(); o < out.row0() + out.rows(); ++o) {
    const int top = o * op.stride_h - op.low_h - in.row0();
    const int r0 = first_inside(top, op.step_h),
              r1 = end_inside(top, op.window_h, op.step_h, in.rows());
    for (int q = out.col0(); q < out.col0() + out.cols(); ++q, to += kLanes<T>) {
      const int left = q * op.stride_w - op.low_w - in.col0();
      const int c0 = first_inside(left, op.step_w),
                c1 = end_inside(left, op.window_w, op.step_w, in.cols());
      V k = V{}, t = V{};
      for (int r = r0; r < r1; r += op.step_h)
        for (int c = c0; c < c1; c += op.step_w) {
          const std::int64_t at = (std::int64_t(r) * in.cols() + c) * kLanes<T>;
          k += load(in.k + at);
          if (kNtk) t += load(in.t + at);
        }
      map.template apply<kNtk>(k, t);
      store(out.k + to, k);
      if (kNtk) store(out.t + to, t);
    }
  }
}

inline int wrapped(int x, int n) { return (x % n + n) % n; }

// Circular padding: the window wraps around in p and in p', so it reads the plane and its mates.
template <class T, bool kNtk>
void plane_conv_circular(const PlaneOp& op, const Plane<T>* mates, int count, Plane<T>& out) {
  using V = typename Vector<T>::type;
  const Affine<T> map = of_window_sums(op).as<T>();
  for_pixels(out, [&](std::int64_t i, std::int64_t o) {
    const int oh = int(o / out.w), ow = int(o % out.w);
    V k = V{}, t = V{};
    for (int r = 0; r < op.window_h; ++r)
      for (int c = 0; c < op.window_w; ++c) {
        const int y = r * op.step_h - op.low_h, x = c * op.step_w - op.low_w;
        const int ph = wrapped(oh * op.stride_h + y, op.h),
                  pw = wrapped(ow * op.stride_w + x, op.w);
        const int qh = wrapped((oh + out.dh) * op.stride_h + y, op.h);
        const int qw = wrapped((ow + out.dw) * op.stride_w + x, op.w);
        for (int m = 0; m < count; ++m) {
          const Plane<T>& in = mates[m];
          if (in.dh != qh - ph || in.dw != qw - pw) continue;
          const std::int64_t at =
              (std::int64_t(ph - in.row0()) * in.cols() + (pw - in.col0())) * kLanes<T>;
          k += load(in.k + at);
          if (kNtk) t += load(in.t + at);
        }
      }
    map.template apply<kNtk>(k, t);
    store(out.k + i * kLanes<T>, k);
    if (kNtk) store(out.t + i * kLanes<T>, t);
  });
}

// One row's sums, with weights of shared windows or without.
template <class T, bool kNtk, bool kWeighted, class V>
NTK_HD void row_sums(const PlaneOp& op, const Plane<T>& plane, int r, V& sum_k, V& sum_t) {
  const std::int64_t first = std::int64_t(r) * plane.cols() * kLanes<T>;
  sum_k = sum_t = V{};
  for (int c = 0; c < plane.cols(); ++c) {
    V k = load(plane.k + first + c * kLanes<T>),
      t = kNtk ? load(plane.t + first + c * kLanes<T>) : V{};
    if (kWeighted) {
      const T u = T(shared_windows(plane.w, plane.col0() + c, plane.dw, op.window_w));
      k *= u;
      t *= u;
    }
    sum_k += k;
    sum_t += t;
  }
}

// Adds the plane's sums to `sum` (K at 0, T at kLanes): weight 1 for all pixel pairs, or the number
// of local averaging windows that hold both pixels (half width 0: p = p' only).
template <class T, bool kNtk>
void plane_readout(const PlaneOp& op, const Plane<T>& plane, double weight, double* sum) {
  using V = typename Vector<T>::type;
  V total_k = V{}, total_t = V{};
  for (int r = 0; r < plane.rows(); ++r) {
    V k, t;
    if (op.window_w < 0) {
      row_sums<T, kNtk, false>(op, plane, r, k, t);
      total_k += k;
      total_t += t;
    } else {
      row_sums<T, kNtk, true>(op, plane, r, k, t);
      const T u = T(shared_windows(plane.h, plane.row0() + r, plane.dh, op.window_h));
      total_k += u * k;
      total_t += u * t;
    }
  }
  for (int l = 0; l < kLanes<T>; ++l) {
    sum[l] += weight * double(total_k[l]);
    if (kNtk) sum[kLanes<T> + l] += weight * double(total_t[l]);
  }
}

}  // namespace
}  // namespace ntk
