// The hot path: tori through a chain of 3x3 convolutions with ReLU, zero padding and stride 1, without leaving registers.
// A lane is a column, its rows are registers; a warp holds as many tori side by side as fit into 32 lanes. Neighbours in
// a row come by shuffle. Where two planes of a torus meet (a seam), and at the image's border, factors 0 cut the sums.
#pragma once

#include "../conv_relu.h"
#include "tori.h"
#include "warp.h"

namespace ntk {

constexpr int kLargestSide = 32;  // of an image whose columns are a warp's lanes

#if defined(__CUDA_ARCH__)
#define NTK_UNROLL _Pragma("unroll")
#else
#define NTK_UNROLL
#endif

enum class StepKind : int { affine, relu, relu_positive };

template <class T>
struct ChainStep {
  StepKind kind;
  T a, b, e, f;  // affine: K <- a S_K + b, T <- a S_T + e S_K + f of the window sums
  ConvRelu<T> relu;
  std::int64_t table;  // where the ReLU's features start
};

// The lanes' places: torus number `unit` (pair rows cols + ...), column of p, its displacement, first column of p'.
struct LanePlace {
  bool active;
  std::int64_t unit, pair;
  int dh, dw, pw, qw;
};

// kRows: registers; kExact: h = w = kRows.
template <class T, int kRows, bool kExact, bool kBias>
struct TorusChain {
  const ChainStep<T>* steps;
  int count;
  Tori<T> s;           // geometry; where `load`, the state before, and where not `sums`, after
  std::int64_t units;  // tori of the batch
  Batch<T> batch;
  int channels;
  bool load;              // start from s, else from the pixels
  double *sum_k, *sum_t;  // [unit], or null: then the state goes to s
  const T* seams;         // [2 kLargestSide + 1]: 1, and 0 in the middle

  NTK_HD int width() const { return kExact ? kRows : s.w; }
  NTK_HD int height() const { return kExact ? kRows : s.h; }
  // Warps that the launch needs.
  std::int64_t warps() const { return (units + kWarp / s.w - 1) / (kWarp / s.w); }

  NTK_HD LanePlace place(std::int64_t warp, int lane) const {
    LanePlace at;
    const int side_by_side = kWarp / width();
    at.unit = warp * side_by_side + lane / width();
    at.active = lane / width() < side_by_side && at.unit < units;
    if (!at.active) at.unit = units - 1;
    at.pair = at.unit / (std::int64_t(s.rows) * s.cols);
    at.dh = s.dh[at.unit / s.cols % s.rows], at.dw = s.dw[at.unit % s.cols];
    at.pw = lane % width(), at.qw = (at.pw + at.dw) % width();
    return at;
  }

  template <class W>
  NTK_HD void run(std::int64_t warp) const {
    using V = typename W::V;
    const auto integers = [&](auto f) { return W::integers([&](int lane) { return f(place(warp, lane)); }); };
    const auto values = [&](auto f) { return W::values([&](int lane) { return f(place(warp, lane)); }); };
    const int w = width();
    const auto row_at = integers(
        [&](const LanePlace& l) -> std::int64_t { return batch.row[l.pair] * batch.row_images.table_size + 2 * l.pw; });
    const auto col_at = integers([&](const LanePlace& l) -> std::int64_t {
      return batch.col[l.pair] * batch.col_images.table_size + 2 * (std::int64_t(l.dh) * w + l.qw);
    });
    // Row r - 1 does not count for row r where r = h - dh.
    const auto seam_at = integers([&](const LanePlace& l) -> std::int64_t { return kLargestSide - (height() - l.dh); });
    const V from_left = values([&](const LanePlace& l) { return T(l.pw > 0 && l.pw != w - l.dw); });
    const V from_right = values([&](const LanePlace& l) { return T(l.pw < w - 1 && l.pw != w - l.dw - 1); });
    V k[kRows], t[kRows];
    start<W>(warp, k, t);
    for (int step = 0; step < count; ++step) {
      const ChainStep<T>& s = steps[step];
      if (s.kind == StepKind::relu_positive)
        layer<W, StepKind::relu_positive>(s, k, t, row_at, col_at, seam_at, from_left, from_right);
      else if (s.kind == StepKind::relu)
        layer<W, StepKind::relu>(s, k, t, row_at, col_at, seam_at, from_left, from_right);
      else
        layer<W, StepKind::affine>(s, k, t, row_at, col_at, seam_at, from_left, from_right);
    }
    finish<W>(warp, k, t);
  }

  template <class W, StepKind kKind, class V, class I>
  NTK_HD void layer(const ChainStep<T>& s, V (&k)[kRows], V (&t)[kRows], const I& row_at, const I& col_at,
                    const I& seam_at, const V& from_left, const V& from_right) const {
    const T *rows = batch.row_images.table + s.table, *cols = batch.col_images.table + s.table;
    V above_k = k[0], above_t = t[0], join = k[0];  // of the row above, and whether it counts; none yet
    NTK_UNROLL for (int r = 0; r < kRows; ++r) {
      if (!kExact && r >= height()) break;
      V sum_k = k[r], sum_t = t[r];
      if (r > 0) sum_k = sum_k + join * above_k, sum_t = sum_t + join * above_t;
      above_k = k[r], above_t = t[r];
      if (r + 1 < kRows) {
        join = W::load(seams, seam_at, r + 1);
        sum_k = sum_k + join * k[r + 1], sum_t = sum_t + join * t[r + 1];
      }
      const V left_k = W::left(sum_k), left_t = W::left(sum_t), right_k = W::right(sum_k), right_t = W::right(sum_t);
      sum_k = sum_k + from_left * left_k + from_right * right_k;
      sum_t = sum_t + from_left * left_t + from_right * right_t;
      if constexpr (kKind == StepKind::affine) {
        sum_t = s.a * sum_t + (s.e * sum_k + s.f);
        sum_k = s.a * sum_k + s.b;
      } else {
        V inverse, root, col_inverse, col_root;
        W::load2(rows, row_at, 2 * std::int64_t(r) * width(), inverse, root);
        W::load2(cols, col_at, 2 * std::int64_t(r) * width(), col_inverse, col_root);
        conv_relu<T, true, kKind == StepKind::relu_positive, kBias>(s.relu, inverse * col_inverse, root * col_root,
                                                                    sum_k, sum_t);
      }
      k[r] = sum_k, t[r] = sum_t;
    }
  }

  // The pixels' products, or the state in memory; rows below the image are zero.
  template <class W, class V>
  NTK_HD void start(std::int64_t warp, V (&k)[kRows], V (&t)[kRows]) const {
    NTK_UNROLL for (int r = 0; r < kRows; ++r) {
      k[r] = t[r] = W::values([](int) { return T(0); });
      if (!kExact && r >= height()) continue;
      if (load) {
        const auto at = W::integers([&](int lane) -> std::int64_t {
          const LanePlace l = place(warp, lane);
          return (l.unit * s.h + r) * s.w + l.pw;
        });
        k[r] = W::load(s.k, at, 0), t[r] = W::load(s.t, at, 0);
      } else {
        k[r] = W::values([&](int lane) { return product(place(warp, lane), r); });
      }
    }
  }

  NTK_HD T product(const LanePlace& l, int ph) const {
    const int qh = (ph + l.dh) % height();
    const T* x = batch.row_images.pixels + batch.row[l.pair] * batch.row_images.pixels_size;
    const T* y = batch.col_images.pixels + batch.col[l.pair] * batch.col_images.pixels_size;
    x += (std::int64_t(ph) * width() + l.pw) * channels, y += (std::int64_t(qh) * width() + l.qw) * channels;
    T sum = 0;
    for (int c = 0; c < channels; ++c) sum += x[c] * y[c];
    return T(1) / T(channels) * sum;
  }

  template <class W, class V>
  NTK_HD void finish(std::int64_t warp, const V (&k)[kRows], const V (&t)[kRows]) const {
    if (!sum_k) {
      NTK_UNROLL for (int r = 0; r < kRows; ++r) {
        if (!kExact && r >= height()) break;
        const auto at = W::integers([&](int lane) -> std::int64_t {
          const LanePlace l = place(warp, lane);
          return l.active ? (l.unit * s.h + r) * s.w + l.pw : -1;
        });
        W::store(s.k, at, 0, k[r]), W::store(s.t, at, 0, t[r]);
      }
      return;
    }
    V total_k = k[0], total_t = t[0];
    NTK_UNROLL for (int r = 1; r < kRows; ++r) total_k = total_k + k[r], total_t = total_t + t[r];
    for (int by = kWarp / 2; by > 0; by /= 2) {  // lane pw adds lane pw + by of its torus
      const V inside = W::values([&](int lane) { return T(lane % width() + by < width()); });
      total_k = total_k + inside * W::right(total_k, by), total_t = total_t + inside * W::right(total_t, by);
    }
    const auto at = W::integers([&](int lane) -> std::int64_t {
      const LanePlace l = place(warp, lane);
      return l.active && l.pw == 0 ? l.unit : -1;
    });
    W::store(sum_k, at, 0, total_k), W::store(sum_t, at, 0, total_t);
  }
};

}  // namespace ntk
