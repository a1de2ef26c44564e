#include "points.h"

#include <algorithm>
#include <future>
#include <limits>

namespace ntk {
namespace {

constexpr std::int64_t kPointsPerThread = 1024;  // a thread costs as much as some hundred points
constexpr std::int64_t kLine = 16;               // points whose features are written together

template <class T>
double squared_norm(const T* x, std::int64_t width) {
  double lanes[8] = {};
  std::int64_t k = 0;
  for (; k + 8 <= width; k += 8)
    for (int l = 0; l < 8; ++l) lanes[l] += double(x[k + l]) * double(x[k + l]);
  for (; k < width; ++k) lanes[0] += double(x[k]) * double(x[k]);
  return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) +
         ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
}

}  // namespace

template <class T>
Points<T>::Points(const Program& program, std::int64_t size, std::int64_t width)
    : size_(size),
      width_(width),
      // Rows a power of two apart would fight for the same cache sets.
      stride_((size + kStrip - 1) / kStrip * kStrip + kLine),
      root_(stride_),
      table_(2 * program.size * stride_),
      nngp_(program.outputs * size),
      ntk_(program.outputs * size) {}

template <class T>
Points<T>::Points(const Program& program, const T* x, std::int64_t size, std::int64_t width)
    : Points(program, size, width) {
  unit_.resize(size * width);
  std::vector<double> norm2(size);
  for (std::int64_t n = 0; n < size; ++n) {
    norm2[n] = squared_norm(x + n * width, width);
    // Too few digits are left of it.
    if (norm2[n] < std::numeric_limits<double>::min()) norm2[n] = 0;
    const double scale = norm2[n] > 0 ? 1 / std::sqrt(norm2[n]) : 0;
    for (std::int64_t k = 0; k < width; ++k) unit_[n * width + k] = T(x[n * width + k] * scale);
  }
  follow(program, norm2.data(), 0, size);
}

template <class T>
Points<T>::Points(const Program& program, const double* norm2, std::int64_t size,
                  std::int64_t width, int threads)
    : Points(program, size, width) {
  const std::int64_t parts = std::clamp<std::int64_t>(size / kPointsPerThread, 1, threads);
  const auto part = [&](std::int64_t p) {
    follow(program, norm2, size * p / parts, size * (p + 1) / parts);
  };
  std::vector<std::future<void>> others;
  for (std::int64_t p = 1; p < parts; ++p)
    others.push_back(std::async(std::launch::async, part, p));
  part(0);
  for (auto& other : others) other.get();
}

template <class T>
void Points<T>::follow(const Program& program, const double* norm2, std::int64_t first,
                       std::int64_t last) {
  std::vector<PointState> slots(program.slots);
  // Rows of the table may lie a power of two apart, in the same few sets of a cache: written a line
  // at a time.
  std::vector<T> line(2 * program.size * kLine);
  for (std::int64_t n = first; n < last; ++n) {
    const std::int64_t at = (n - first) % kLine;
    root_[n] = T(std::sqrt(norm2[n] / double(width_)));
    slots[0] = {norm2[n] / double(width_), 0};
    follow_kernels(
        program, slots.data(),
        [&](int op, int which, double value) {
          line[(2 * std::int64_t(op) + which) * kLine + at] =
              which == 0 && holds_inverse(program.ops[op])
                  ? bounded_inverse<T>(value, std::numeric_limits<T>::max())
                  : T(value);
        },
        [&](int output, double nngp, double ntk) {
          nngp_[output * size_ + n] = nngp;
          ntk_[output * size_ + n] = ntk;
        });
    if (at < kLine - 1 && n < last - 1) continue;
    for (std::int64_t k = 0; k < 2 * program.size; ++k)
      std::copy_n(&line[k * kLine], at + 1, &table_[k * stride_ + n - at]);
  }
}

template <class T>
PointsView<T> Points<T>::view() const {
  return {size_,        width_,        stride_,      unit_.data(),
          root_.data(), table_.data(), nngp_.data(), ntk_.data()};
}

template class Points<float>;
template class Points<double>;

}  // namespace ntk
