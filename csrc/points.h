// Everything that depends on one point only: its unit vector, its variance before every op, its own kernel value.
#pragma once

#include <cstdint>
#include <vector>

#include "program.h"

namespace ntk {

// Two features of every point for every op, and the root of its input variance; columns may be read up to `stride`.
template <class T>
struct PointsView {
  std::int64_t size;
  std::int64_t width;   // features of the data
  std::int64_t stride;  // size rounded up to whole strips, zero padded
  const T* unit;        // [size][width]: x / |x|, zero for a zero vector; null without the data
  const T* root;        // [stride]: |x| / sqrt(width)
  const T* table;       // [ops][2][stride]
  const double* nngp;   // [outputs][size]: the diagonal of the kernel
  const double* ntk;

  NTK_HD const T* feature(int op, int which) const { return table + (2 * std::int64_t(op) + which) * stride; }
};

// The features are those of point.h.
template <class T>
class Points {
 public:
  // x: [size][width], C order. Variances are followed in double whatever T is.
  Points(const Program& program, const T* x, std::int64_t size, std::int64_t width);
  // Without the data, whose unit vectors lie elsewhere: norm2 is |x|^2 of every point.
  Points(const Program& program, const double* norm2, std::int64_t size, std::int64_t width, int threads);
  PointsView<T> view() const;
  const T* unit() const { return unit_.data(); }  // null without the data
  std::int64_t size() const { return size_; }
  std::int64_t width() const { return width_; }

 private:
  Points(const Program& program, std::int64_t size, std::int64_t width);
  // Features of the points [first, last).
  void follow(const Program& program, const double* norm2, std::int64_t first, std::int64_t last);

  std::int64_t size_, width_, stride_;
  std::vector<T> unit_, root_, table_;
  std::vector<double> nngp_, ntk_;
};

// Columns of a tile are processed in strips of this many pairs.
constexpr std::int64_t kStrip = 256;

}  // namespace ntk
