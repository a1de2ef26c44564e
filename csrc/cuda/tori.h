// The state of a batch of pairs of images on the GPU: all pixel pairs (p, p'), by displacement
// d = p' - p on the torus of the image's size. The planes d and d - h (d - w) share one torus and
// fill it without overlap, so no element is idle. The ops on it, one element each, in any geometry;
// the 3x3 ReLU layers have a faster way (torus_chain.h).
#pragma once

#include "../program/plane_program.h"
#include "../samples/views.h"

namespace ntk {

template <class T>
struct Tori {
  T *k, *t;                // [pair][rows][cols][h][w]
  int h, w;                // image
  int rows, cols;          // displacements held
  const int *dh, *dw;      // [rows], [cols]: which ones
  const int *at_h, *at_w;  // [h], [w]: where one is held, or -1

  NTK_HD std::int64_t per_pair() const { return std::int64_t(rows) * cols * h * w; }
  // Of K[p, p'] within its pair, or -1 where its displacement is not held.
  NTK_HD int index(int ph, int pw, int qh, int qw) const {
    const int a = at_h[qh < ph ? qh - ph + h : qh - ph], b = at_w[qw < pw ? qw - pw + w : qw - pw];
    return a < 0 || b < 0 ? -1 : ((a * cols + b) * h + ph) * w + pw;
  }
};

// One pixel pair: p, its displacement on the torus, and p'.
struct Spot {
  int ph, pw, dh, dw, qh, qw;
};

// Element i of the state of a pair.
template <class T>
NTK_HD Spot spot(const Tori<T>& s, int i) {
  Spot at;
  at.pw = i % s.w;
  i /= s.w;
  at.ph = i % s.h;
  i /= s.h;
  at.dw = s.dw[i % s.cols];
  at.dh = s.dh[i / s.cols];
  at.qw = at.pw + at.dw < s.w ? at.pw + at.dw : at.pw + at.dw - s.w;
  at.qh = at.ph + at.dh < s.h ? at.ph + at.dh : at.ph + at.dh - s.h;
  return at;
}

// Rows of a strip: what a lane of the chain holds of a column (torus_chain.h).
template <class T>
NTK_HD constexpr int chain_rows(int h, int w) {
  return sizeof(T) == 8 || (h == 8 && w == 8) ? 8 : 16;
}

// Numbers of an image's pixels so that a lane reads two neighbouring columns at once, wherever it
// starts: [parity][rows][pairs][2], at (parity, r, i) row r mod h and the columns 2 i + parity and
// the next, around the circle.
struct PairLayout {
  int rows, pairs;
  NTK_HD int at(int parity, int r, int i) const { return 2 * ((parity * rows + r) * pairs + i); }
  NTK_HD int size() const { return 4 * rows * pairs; }
};
// p' of a lane's last row is dh < h rows below the end of the last strip.
template <class T>
NTK_HD PairLayout pair_layout(int h, int w) {
  const int strip = chain_rows<T>(h, w);
  return {h + (h + strip - 1) / strip * strip, (w + 1) / 2};
}

// The images of a tile, packed for the GPU, and which of them a batch pairs.
template <class T>
struct PackedImages {
  const T* pixels;  // [image][channels] PairLayout
  // [image][table_size]: per op either its features [2 h][w][2], the rows twice, so that p' may
  // wrap, or what a chain wants of it in PairLayout.
  const T* table;
  std::int64_t pixels_size, table_size;
};

template <class T>
struct Batch {
  PackedImages<T> row_images, col_images;
  const int *row, *col;  // [pair]: image numbers
};

// The ops on element i of the state of pair number `pair`.

// K = <x(p), x'(p')> / channels, T = 0.
template <class T>
struct InputOp {
  Tori<T> out;
  Batch<T> batch;
  int channels;

  NTK_HD void operator()(std::int64_t pair, int i) const {
    const Spot at = spot(out, i);
    const PairLayout layout = pair_layout<T>(out.h, out.w);
    const T* x = batch.row_images.pixels + batch.row[pair] * batch.row_images.pixels_size;
    const T* y = batch.col_images.pixels + batch.col[pair] * batch.col_images.pixels_size;
    x += layout.at(0, at.ph, at.pw / 2) + at.pw % 2;
    y += layout.at(0, at.qh, at.qw / 2) + at.qw % 2;
    T sum = 0;
    for (int c = 0; c < channels; ++c, x += layout.size(), y += layout.size()) sum += *x * *y;
    const std::int64_t to = pair * out.per_pair() + i;
    out.k[to] = T(1) / T(channels) * sum;
    out.t[to] = 0;
  }
};

// Any filter, stride, dilation and padding: sums over the window of in(s p + k - low,
// s p' + k - low), k in steps of the dilation.
template <class T>
struct ConvOp {
  PlaneOp op;
  Affine<T> map;  // of window sums
  Tori<T> in, out;

  // Where pixel number k of the window at o lies, or -1 in the padding.
  NTK_HD int place(const Axis& axis, int o, int k) const {
    const int x = o * axis.stride + k * axis.step - axis.low, n = axis.n;
    return op.circular ? (x % n + n) % n : x < n ? x : -1;
  }
  NTK_HD void operator()(std::int64_t pair, int i) const {
    const Spot at = spot(out, i);
    const T *const in_k = in.k + pair * in.per_pair(), *const in_t = in.t + pair * in.per_pair();
    const Axis rows = op.rows(), cols = op.cols();
    T k = 0, t = 0;
    for (int r = 0; r < rows.window; ++r) {
      const int ph = place(rows, at.ph, r), qh = place(rows, at.qh, r);
      if (ph < 0 || qh < 0) continue;
      for (int c = 0; c < cols.window; ++c) {
        const int pw = place(cols, at.pw, c), qw = place(cols, at.qw, c);
        if (pw < 0 || qw < 0) continue;
        const int from = in.index(ph, pw, qh, qw);
        if (from < 0) continue;
        k += in_k[from];
        t += in_t[from];
      }
    }
    map.template apply<true>(k, t);
    const std::int64_t to = pair * out.per_pair() + i;
    out.k[to] = k;
    out.t[to] = t;
  }
};

// Sums over both windows of in(s p + k - low, s p' + k' - low), scaled.
template <class T>
struct PoolOp {
  PlaneOp op;
  Tori<T> in, out;

  NTK_HD void operator()(std::int64_t pair, int i) const {
    const Spot at = spot(out, i);
    const T *const in_k = in.k + pair * in.per_pair(), *const in_t = in.t + pair * in.per_pair();
    const Axis rows = op.rows(), cols = op.cols();
    T k = 0, t = 0;
    for (int ph = rows.first(at.ph); ph < rows.last(at.ph); ++ph)
      for (int qh = rows.first(at.qh); qh < rows.last(at.qh); ++qh)
        for (int pw = cols.first(at.pw); pw < cols.last(at.pw); ++pw)
          for (int qw = cols.first(at.qw); qw < cols.last(at.qw); ++qw) {
            const int from = in.index(ph, pw, qh, qw);
            if (from < 0) continue;
            k += in_k[from];
            t += in_t[from];
          }
    const T scale = T(pool_scale(op, at.ph, at.pw, at.qh, at.qw));
    const std::int64_t to = pair * out.per_pair() + i;
    out.k[to] = scale * k;
    out.t[to] = scale * t;
  }
};

// A 2x2 pool in p and in p' of an even image, from the partial sums that chains leave instead of
// their state. With p = 2P + a and p' = 2P' + a' the displacement is d = 2D + a' - a: an even
// d = 2D sums a = a' = 0 and 1 into part 0; an odd d holds a = 0 of D = (d - 1)/2 as part 0 and
// a = 1 of D = (d + 1)/2 as part 1. The same along columns; a torus is [row part][column
// part][h/2][w/2].
template <class T>
struct PoolPartsOp {
  Tori<T> in, out;
  T scale;

  NTK_HD void operator()(std::int64_t pair, int i) const {
    const Spot at = spot(out, i);
    const int quarter = out.h * out.w, place = at.ph * out.w + at.pw;
    const T *const in_k = in.k + pair * in.per_pair(), *const in_t = in.t + pair * in.per_pair();
    T k = 0, t = 0;
    for (int e = -1; e <= 1; ++e)
      for (int f = -1; f <= 1; ++f) {
        const int row = in.at_h[around(2 * at.dh + e, in.h)],
                  col = in.at_w[around(2 * at.dw + f, in.w)];
        if (row < 0 || col < 0) continue;
        const int part = 2 * (e < 0) + (f < 0),
                  from = ((row * in.cols + col) * 4 + part) * quarter + place;
        k += in_k[from];
        t += in_t[from];
      }
    const std::int64_t to = pair * out.per_pair() + i;
    out.k[to] = scale * k;
    out.t[to] = scale * t;
  }
  static NTK_HD int around(int d, int n) { return d < 0 ? d + n : d; }
};

// The features of the op whose table starts at `table`, of p and of p'.
template <class T>
NTK_HD void features(const Batch<T>& batch, std::int64_t table, int step, int w, std::int64_t pair,
                     const Spot& at, const T*& row, const T*& col) {
  row = batch.row_images.table + batch.row[pair] * batch.row_images.table_size + table;
  col = batch.col_images.table + batch.col[pair] * batch.col_images.table_size + table;
  row += step * (at.ph * w + at.pw);
  col += step * (at.qh * w + at.qw);
}

template <class T, class Phi>
struct PointwiseOp {
  Phi phi;
  Tori<T> s;
  Batch<T> batch;
  std::int64_t table;
  int step;  // features of a pixel

  NTK_HD void operator()(std::int64_t pair, int i) const {
    const T *row, *col;
    features(batch, table, step, s.w, pair, spot(s, i), row, col);
    const std::int64_t at = pair * s.per_pair() + i;
    const auto of_row = [=](int which) { return row[which]; };
    const auto of_col = [=](int which) { return col[which]; };
    T e, d;
    pair_of(phi, s.k[at], of_row, of_col, terms_of(phi, of_row, of_col), e, d);
    s.k[at] = e;
    s.t[at] *= d;
  }
};

template <class T>
struct CombineOp {
  PlaneOpKind kind;
  Tori<T> to, from;

  NTK_HD void operator()(std::int64_t pair, int i) const {
    const std::int64_t at = pair * to.per_pair() + i;
    combine(kind, to.k[at], to.t[at], from.k[at], from.t[at]);
  }
};

// The share of one torus' column in a read-out: i = (a cols + b) w + pw.
template <class T>
struct ReadoutOp {
  PlaneOp op;
  Tori<T> s;
  double *sum_k, *sum_t;

  NTK_HD void operator()(std::int64_t pair, int i) const {
    const int pw = i % s.w, torus = i / s.w;
    const int qw = (pw + s.dw[torus % s.cols]) % s.w, dh = s.dh[torus / s.cols];
    double k = 0, t = 0;
    for (int ph = 0; ph < s.h; ++ph) {
      const int qh = (ph + dh) % s.h;
      const double weight = op.window_h < 0
                                ? 1
                                : double(shared_windows(s.h, ph, qh - ph, op.window_h)) *
                                      shared_windows(s.w, pw, qw - pw, op.window_w);
      const std::int64_t at = pair * s.per_pair() + (torus * s.h + ph) * s.w + pw;
      k += weight * s.k[at];
      t += weight * s.t[at];
    }
    const std::int64_t to = pair * s.rows * s.cols * s.w + i;
    sum_k[to] = k;
    sum_t[to] = t;
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
