// Pooling between planes: out plane D of stride s is made of the planes s D + e, |e| < window, of
// its input. Output planes live in bands (all dw of one dh) that are opened, filled and handed on
// in order: a streaming pool.
#pragma once

#include "plane.h"

namespace ntk {
namespace {

template <class T>
struct Pool {
  const PlaneOp* op;
  T* memory;  // [bands][2][pixels of a band][lane]
  int bands;  // alive at a time
  int next;   // first output displacement dh not yet handed on

  std::int64_t band_size() const {
    return std::int64_t(op->out_h) * op->out_w * op->out_w * kLanes<T>;
  }
  Plane<T> plane(int dh, int dw) const {
    // Columns of planes -(w-1) ... dw-1: 1 + 2 + ... + w + ... + 1.
    const int w = op->out_w, n = w - 1 + dw;
    const std::int64_t before = n < w ? n * (n + 1) / 2 : w * w - (w - dw) * (w - dw + 1) / 2;
    T* band = memory + 2 * band_size() * ((dh + op->out_h - 1) % bands);
    T* k = band + before * op->out_h * kLanes<T>;
    return {k, k + band_size(), op->out_h, op->out_w, dh, dw, true};
  }
  void clear_band(int dh) {
    T* band = memory + 2 * band_size() * ((dh + op->out_h - 1) % bands);
    for (std::int64_t i = 0; i < 2 * band_size(); ++i) band[i] = 0;
  }
};

// Range of k in [0, window) with k + e in [0, window).
struct Overlap {
  int first, last;
};
inline Overlap overlap(int window, int e) { return {e < 0 ? -e : 0, e < 0 ? window : window - e}; }

// out(o) += sum over k, k + e in the window of in(s o + k - low).
template <class T, bool kNtk>
void pool_into(const PlaneOp& op, const Plane<T>& in, int eh, int ew, Plane<T> out) {
  using V = typename Vector<T>::type;
  constexpr int L = kLanes<T>;
  const Overlap oh = overlap(op.window_h, eh), ow = overlap(op.window_w, ew);
  for (int r = 0; r < out.rows(); ++r) {
    const int top = (out.row0() + r) * op.stride_h - op.low_h - in.row0();
    for (int a = top + oh.first; a < top + oh.last; ++a) {
      if (a < 0 || a >= in.rows()) continue;
      const std::int64_t line = std::int64_t(a) * in.cols();
      T *k = out.k + std::int64_t(r) * out.cols() * L,
        *t = out.t + std::int64_t(r) * out.cols() * L;
      for (int c = 0; c < out.cols(); ++c) {
        const int left = (out.col0() + c) * op.stride_w - op.low_w - in.col0();
        const int b0 = left + ow.first < 0 ? 0 : left + ow.first,
                  b1 = left + ow.last < in.cols() ? left + ow.last : in.cols();
        V sum_k = load(k + c * L), sum_t = load(t + c * L);
        for (int b = b0; b < b1; ++b) {
          sum_k += load(in.k + (line + b) * L);
          if (kNtk) sum_t += load(in.t + (line + b) * L);
        }
        store(k + c * L, sum_k);
        if (kNtk) store(t + c * L, sum_t);
      }
    }
  }
}

// Adds one input plane to every output plane that it belongs to.
template <class T, bool kNtk>
void pool_plane(const Pool<T>& pool, const Plane<T>& in, const unsigned char* need_h,
                const unsigned char* need_w) {
  const PlaneOp& op = *pool.op;
  for (int eh = 1 - op.window_h; eh < op.window_h; ++eh) {
    if ((in.dh - eh) % op.stride_h) continue;
    const int dh = (in.dh - eh) / op.stride_h;
    if (dh <= -op.out_h || dh >= op.out_h || !need_h[dh + op.out_h - 1]) continue;
    for (int ew = 1 - op.window_w; ew < op.window_w; ++ew) {
      if ((in.dw - ew) % op.stride_w) continue;
      const int dw = (in.dw - ew) / op.stride_w;
      if (dw <= -op.out_w || dw >= op.out_w || !need_w[dw + op.out_w - 1]) continue;
      pool_into<T, kNtk>(op, in, eh, ew, pool.plane(dh, dw));
    }
  }
}

// The pool's scale on a finished plane.
template <class T, bool kNtk>
void scale_pooled(const PlaneOp& op, Plane<T>& plane) {
  for_pixels(plane, [&](std::int64_t i, std::int64_t p) {
    const int h = int(p / plane.w), w = int(p % plane.w);
    const T scale = T(pool_scale(op, h, w, h + plane.dh, w + plane.dw));
    store(plane.k + i * kLanes<T>, scale * load(plane.k + i * kLanes<T>));
    if (kNtk) store(plane.t + i * kLanes<T>, scale * load(plane.t + i * kLanes<T>));
  });
}

}  // namespace
}  // namespace ntk
