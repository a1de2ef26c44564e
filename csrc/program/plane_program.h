// The program of a convolutional network: ops on displacement planes, read-outs, then a head of
// vector ops.
#pragma once

#include <utility>
#include <vector>

#include "program.h"

namespace ntk {

enum class PlaneOpKind : int {
  conv,       // K, T <- an Affine of their means over the filter window (out of range: 0)
  pointwise,  // K, T <- E, D T, with the variances of both pixels
  copy,       // slot `slot` <- slot `other`
  add,        // slot `slot` += slot `other`
  multiply,   // K, T <- K K', T K' + K T' of both slots
  pool,       // mean or sum over windows in p and in p'; ends a segment; only slot 0 lives on
  readout,    // head slot `other` <- weighted sum over all pixel pairs of `slot`
};

inline bool is_affine(PlaneOpKind kind) { return kind == PlaneOpKind::conv; }

// How a convolution runs: any shape; 3x3 in place; 3x3 with the ReLU that follows, whose op is
// skipped then.
enum class FastPath : int { none, conv3, conv3_relu, conv3_relu_positive, skipped };

// What an op does along one axis: n pixels become `out` through windows that start at o stride -
// low.
struct Axis {
  int n, out, window, stride, low;
  int step;  // between neighbours in the window: of convolutions

  // Pixels of the window at o, of step 1, that lie inside the image: [first, last).
  NTK_HD int first(int o) const { return o * stride - low > 0 ? o * stride - low : 0; }
  NTK_HD int last(int o) const {
    return o * stride - low + window < n ? o * stride - low + window : n;
  }
};

struct PlaneOp {
  PlaneOpKind kind;
  Pointwise pointwise;
  int slot, other;
  Constants constants;
  int h, w;                // image before the op
  int out_h, out_w;        // image after it
  int window_h, window_w;  // readout: half width of local average pooling, or -1: all pixel pairs
  int stride_h, stride_w;
  int low_h, low_w;     // padding before the first row, column
  int circular;         // conv: padding wraps around
  int normalize_edges;  // pool: divide by the number of pixels inside the image
  int step_h, step_w;   // conv: dilation
  FastPath fast;        // conv, its followers: set by PlaneSchedule

  NTK_HD Axis rows() const { return {h, out_h, window_h, stride_h, low_h, step_h}; }
  NTK_HD Axis cols() const { return {w, out_w, window_w, stride_w, low_w, step_w}; }
};

// Strides from a segment's start; beyond 2^16, more than any side has pixels, they all skip
// everything but d = 0.
inline int capped_product(int a, int b) {
  return std::int64_t(a) * b < (1 << 16) ? a * b : 1 << 16;
}

// Strides of every slot since the last pool.
class Strides {
 public:
  explicit Strides(int slots) : of_(slots, {1, 1}) {}
  std::pair<int, int> of(int slot) const { return of_[slot]; }
  void follow(const PlaneOp& op) {
    auto& own = of_[op.slot];
    if (op.kind == PlaneOpKind::conv)
      own = {capped_product(own.first, op.stride_h), capped_product(own.second, op.stride_w)};
    if (op.kind == PlaneOpKind::copy) own = of_[op.other];
    if (op.kind == PlaneOpKind::pool) own = {1, 1};
  }

 private:
  std::vector<std::pair<int, int>> of_;
};

// A convolution of window sums.
inline Affine<double> of_window_sums(const PlaneOp& conv) {
  const Affine<double> map = conv.constants.affine();
  const double area = double(conv.window_h) * conv.window_w;
  return {map.a / area, map.b, map.e / area, map.f};
}

// Features of a pixel that lie side by side: two, or those of all ops of a series.
NTK_HD int pixel_features(const PlaneOp& op) { return 2 * op.constants.pairs; }

// Numbers that one image holds for an op: features of every pixel, a series' at its first op.
inline std::int64_t feature_count(const PlaneOp& op) {
  const bool holds = op.kind == PlaneOpKind::pointwise && op.constants.number == 0;
  return holds ? std::int64_t(pixel_features(op)) * op.h * op.w : 0;
}

// What the sum over a pool's windows at p and p' is multiplied by: a constant, or one over the
// pixels inside the image.
NTK_HD double pool_scale(const PlaneOp& op, int ph, int pw, int qh, int qw) {
  if (!op.normalize_edges) return op.constants.scale();
  const Axis rows = op.rows(), cols = op.cols();
  const int here = (rows.last(ph) - rows.first(ph)) * (cols.last(pw) - cols.first(pw));
  const int there = (rows.last(qh) - rows.first(qh)) * (cols.last(qw) - cols.first(qw));
  return 1.0 / (double(here) * there);
}

// Number of windows of half width c, centred in the image of size n, that hold both x and x + d.
NTK_HD int shared_windows(int n, int x, int d, int c) {
  const int low = d < 0 ? x + d : x, high = d < 0 ? x : x + d;
  const int first = high - c > 0 ? high - c : 0, last = low + c < n - 1 ? low + c : n - 1;
  return last >= first ? last - first + 1 : 0;
}

// Planes a network needs, per segment (the ops between two pools) and axis: need[d + h - 1] for |d|
// < h.
struct Segment {
  int first, last;  // plane ops [first, last); the pool, if any, is op number `last`
  int h, w;         // image at its start
  // Holds a circular convolution: a plane comes with its mates d +- period_h, d +- period_w.
  bool circular;
  // The size where it stands times the strides before it: from h, w to below twice as much.
  int period_h, period_w;
  const unsigned char *need_h, *need_w;

  // Is plane d needed, or its mate d - period?
  bool needs_h(int d) const { return need_h[(d < h ? d : d - period_h) + h - 1]; }
  bool needs_w(int d) const { return need_w[(d < w ? d : d - period_w) + w - 1]; }
};

struct PlaneProgram {
  const PlaneOp* ops;
  int size;
  int slots;
  const Segment* segments;
  int segment_count;
  int h, w, channels;
  Program head;  // slot r of the head starts as read-out r
};

}  // namespace ntk
