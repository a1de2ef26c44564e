// What backends read of samples: of points (points.h), for the gradient (slopes.h), and of images
// (images.h).
#pragma once

#include <cstdint>

#include "../math/portable.h"

namespace ntk {

// Columns of a tile are processed in strips of this many pairs.
constexpr std::int64_t kStrip = 256;

// Two features of every point for every op, and the root of its input variance; columns may be read
// up to `stride`.
template <class T>
struct PointsView {
  std::int64_t size;
  std::int64_t width;   // features of the data
  std::int64_t stride;  // size rounded up to whole strips and a line, zero padded
  const T* unit;        // [size][width]: x / |x|, zero for a zero vector; null without the data
  const T* root;        // [stride]: |x| / sqrt(width)
  const T* table;       // [ops][2][stride]
  const double* nngp;   // [outputs][size]: the diagonal of the kernel
  const double* ntk;

  NTK_HD const T* feature(int op, int which) const {
    return table + (2 * std::int64_t(op) + which) * stride;
  }
};

// What the gradient needs of one point at one op; q is its variance before the op.
enum class Slope : int {
  q,
  f0,  // the features of dual.h's side(q), or of normalize; the variance in an op's other slot
  f1,
  df0,  // their derivatives with respect to q
  df1,
  variance,  // the op's result for the point with itself, K = q: E and D of dual.h's diag(q)
  factor,
  dvariance,  // their derivatives
  dfactor,
  count
};

struct SlopesView {
  PointsView<double> points;
  const double* table;  // [ops][Slope::count][stride]
  const double* at(int op, Slope which) const {
    return table + (int(Slope::count) * std::int64_t(op) + int(which)) * points.stride;
  }
};

// Lanes of a strip of images in tables and data, whatever the instruction set: one cache line.
template <class T>
constexpr int kImageLanes = 64 / sizeof(T);

// Strips of kImageLanes<T> images in lane order, with what depends on one image only.
template <class T>
struct ImagesView {
  std::int64_t size;
  const T* pixels;             // [strip][h w][channels][lane]
  std::int64_t pixels_stride;  // of strips
  const T* table;              // [strip] of features: op k at offset[k], [h w][2…][lane]
  std::int64_t table_stride;   // of strips
  const std::int64_t* offset;  // per plane op
  const T* head_table;         // [head op][2][head_stride]
  std::int64_t head_stride;
};

}  // namespace ntk
