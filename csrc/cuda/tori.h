// The state of a batch of pairs of images on the GPU: all pixel pairs (p, p'), by displacement d = p' - p on the torus of
// the image's size. The planes d and d - h (d - w) share one torus and fill it without overlap, so no element is idle.
// The ops on it, one element each, in any geometry; the 3x3 ReLU layers have a faster way (torus_chain.h).
#pragma once

#include "../plane_program.h"

namespace ntk {

template <class T>
struct Tori {
  T *k, *t;                // [pair][rows][cols][h][w]
  int h, w;                // image
  int rows, cols;          // displacements held
  const int *dh, *dw;      // [rows], [cols]: which ones
  const int *at_h, *at_w;  // [h], [w]: where one is held, or -1

  NTK_HD std::int64_t per_pair() const { return std::int64_t(rows) * cols * h * w; }
  // Of K[p, p'], or -1 where its displacement is not held.
  NTK_HD std::int64_t index(std::int64_t pair, int ph, int pw, int qh, int qw) const {
    const int a = at_h[qh < ph ? qh - ph + h : qh - ph], b = at_w[qw < pw ? qw - pw + w : qw - pw];
    return a < 0 || b < 0 ? -1 : (((pair * rows + a) * cols + b) * h + ph) * w + pw;
  }
};

// One pixel pair of one pair of images.
struct Spot {
  std::int64_t pair;
  int ph, pw, qh, qw;
};

template <class T>
NTK_HD Spot spot(const Tori<T>& s, std::int64_t i) {
  Spot at;
  at.pw = int(i % s.w), i /= s.w;
  at.ph = int(i % s.h), i /= s.h;
  at.qw = (at.pw + s.dw[i % s.cols]) % s.w, i /= s.cols;
  at.qh = (at.ph + s.dh[i % s.rows]) % s.h;
  at.pair = i / s.rows;
  return at;
}

// The images of a tile, packed for the GPU, and which of them a batch pairs.
template <class T>
struct PackedImages {
  const T* pixels;  // [image][h][w][channels]
  const T* table;   // [image][table_size]: op k at 2 offset[k], [2 h][w][2]; the rows stand twice, so that p' may wrap
  std::int64_t pixels_size, table_size;
};

template <class T>
struct Batch {
  PackedImages<T> row_images, col_images;
  const int *row, *col;  // [pair]: image numbers
};

// K = <x(p), x'(p')> / channels, T = 0.
template <class T>
struct InputOp {
  Tori<T> out;
  Batch<T> batch;
  int channels;

  NTK_HD void operator()(std::int64_t i) const {
    const Spot at = spot(out, i);
    const T* x = batch.row_images.pixels + batch.row[at.pair] * batch.row_images.pixels_size;
    const T* y = batch.col_images.pixels + batch.col[at.pair] * batch.col_images.pixels_size;
    x += (std::int64_t(at.ph) * out.w + at.pw) * channels, y += (std::int64_t(at.qh) * out.w + at.qw) * channels;
    T sum = 0;
    for (int c = 0; c < channels; ++c) sum += x[c] * y[c];
    out.k[i] = T(1) / T(channels) * sum;
    out.t[i] = 0;
  }
};

// Any filter, stride and padding: sums over the window of in(s p + k - low, s p' + k - low).
template <class T>
struct ConvOp {
  PlaneOp op;
  Tori<T> in, out;

  NTK_HD int place(int o, int stride, int k, int low, int n) const {
    const int x = o * stride + k - low;
    return op.circular ? (x % n + n) % n : x;
  }
  NTK_HD void operator()(std::int64_t i) const {
    const Spot at = spot(out, i);
    T k = 0, t = 0;
    for (int r = 0; r < op.window_h; ++r) {
      const int ph = place(at.ph, op.stride_h, r, op.low_h, in.h), qh = place(at.qh, op.stride_h, r, op.low_h, in.h);
      if (ph < 0 || ph >= in.h || qh < 0 || qh >= in.h) continue;
      for (int c = 0; c < op.window_w; ++c) {
        const int pw = place(at.pw, op.stride_w, c, op.low_w, in.w), qw = place(at.qw, op.stride_w, c, op.low_w, in.w);
        if (pw < 0 || pw >= in.w || qw < 0 || qw >= in.w) continue;
        const std::int64_t from = in.index(at.pair, ph, pw, qh, qw);
        if (from >= 0) k += in.k[from], t += in.t[from];
      }
    }
    conv_affine<T, true>(op, k, t);
    out.k[i] = k, out.t[i] = t;
  }
};

// Sums over both windows of in(s p + k - low, s p' + k' - low), scaled.
template <class T>
struct PoolOp {
  PlaneOp op;
  Tori<T> in, out;

  NTK_HD void operator()(std::int64_t i) const {
    const Spot at = spot(out, i);
    const int rows[2] = {at.ph * op.stride_h - op.low_h, at.qh * op.stride_h - op.low_h};
    const int cols[2] = {at.pw * op.stride_w - op.low_w, at.qw * op.stride_w - op.low_w};
    T k = 0, t = 0;
    for (int ph = first(rows[0]); ph < last(rows[0], op.window_h, in.h); ++ph)
      for (int qh = first(rows[1]); qh < last(rows[1], op.window_h, in.h); ++qh)
        for (int pw = first(cols[0]); pw < last(cols[0], op.window_w, in.w); ++pw)
          for (int qw = first(cols[1]); qw < last(cols[1], op.window_w, in.w); ++qw) {
            const std::int64_t from = in.index(at.pair, ph, pw, qh, qw);
            if (from >= 0) k += in.k[from], t += in.t[from];
          }
    T scale = T(op.p[0]);
    if (op.normalize_edges) {
      const int here =
          (last(rows[0], op.window_h, in.h) - first(rows[0])) * (last(cols[0], op.window_w, in.w) - first(cols[0]));
      const int there =
          (last(rows[1], op.window_h, in.h) - first(rows[1])) * (last(cols[1], op.window_w, in.w) - first(cols[1]));
      scale = T(1.0 / (double(here) * there));
    }
    out.k[i] = scale * k, out.t[i] = scale * t;
  }
  static NTK_HD int first(int start) { return start < 0 ? 0 : start; }
  static NTK_HD int last(int start, int window, int n) { return start + window < n ? start + window : n; }
};

// Both features of the op whose table starts at `table`, of p and of p'.
template <class T>
NTK_HD void features(const Batch<T>& batch, std::int64_t table, int w, const Spot& at, const T*& row, const T*& col) {
  row = batch.row_images.table + batch.row[at.pair] * batch.row_images.table_size + table;
  col = batch.col_images.table + batch.col[at.pair] * batch.col_images.table_size + table;
  row += 2 * (std::int64_t(at.ph) * w + at.pw), col += 2 * (std::int64_t(at.qh) * w + at.qw);
}

template <class T, class Phi>
struct DualOp {
  Phi phi;
  Tori<T> s;
  Batch<T> batch;
  std::int64_t table;

  NTK_HD void operator()(std::int64_t i) const {
    const T *row, *col;
    features(batch, table, s.w, spot(s, i), row, col);
    T e, d;
    phi.pair(s.k[i], row[0], row[1], col[0], col[1], e, d);
    s.k[i] = e, s.t[i] *= d;
  }
};

template <class T>
struct NormalizeOp {
  Tori<T> s;
  Batch<T> batch;
  std::int64_t table;

  NTK_HD void operator()(std::int64_t i) const {
    const T *row, *col;
    features(batch, table, s.w, spot(s, i), row, col);
    s.k[i] *= row[0] * col[0], s.t[i] *= row[0] * col[0];
  }
};

template <class T>
struct CopyOrAddOp {
  bool add;
  Tori<T> to, from;

  NTK_HD void operator()(std::int64_t i) const {
    to.k[i] = add ? to.k[i] + from.k[i] : from.k[i];
    to.t[i] = add ? to.t[i] + from.t[i] : from.t[i];
  }
};

// The share of one torus' column in a read-out: i = ((pair rows + a) cols + b) w + pw.
template <class T>
struct ReadoutOp {
  PlaneOp op;
  Tori<T> s;
  double *sum_k, *sum_t;

  NTK_HD void operator()(std::int64_t i) const {
    const int pw = int(i % s.w);
    const std::int64_t torus = i / s.w;
    const int qw = (pw + s.dw[torus % s.cols]) % s.w, dh = s.dh[torus / s.cols % s.rows];
    double k = 0, t = 0;
    for (int ph = 0; ph < s.h; ++ph) {
      const int qh = (ph + dh) % s.h;
      const double weight = op.window_h < 0 ? 1
                                            : double(shared_windows(s.h, ph, qh - ph, op.window_h)) *
                                                  shared_windows(s.w, pw, qw - pw, op.window_w);
      const std::int64_t at = (torus * s.h + ph) * s.w + pw;
      k += weight * s.k[at], t += weight * s.t[at];
    }
    sum_k[i] = k, sum_t[i] = t;
  }
};

struct Zero {
  double* out;
  NTK_HD void operator()(std::int64_t i) const { out[i] = 0; }
};

// out[i stride] = or += scale times the sum of `count` numbers, always in the same order.
struct SumOp {
  const double* in;
  double* out;
  std::int64_t count, stride;
  double scale;
  bool add;

  NTK_HD void operator()(std::int64_t i) const {
    double sum = 0;
    for (std::int64_t k = 0; k < count; ++k) sum += in[i * count + k];
    out[i * stride] = (add ? out[i * stride] : 0) + scale * sum;
  }
};

}  // namespace ntk
