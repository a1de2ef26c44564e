#include "points.h"

#include "point.h"

namespace ntk {
namespace {

template <class T>
double squared_norm(const T* x, std::int64_t width) {
  double lanes[8] = {};
  std::int64_t k = 0;
  for (; k + 8 <= width; k += 8)
    for (int l = 0; l < 8; ++l) lanes[l] += double(x[k + l]) * double(x[k + l]);
  for (; k < width; ++k) lanes[0] += double(x[k]) * double(x[k]);
  return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
}

}  // namespace

template <class T>
Points<T>::Points(const Program& program, const T* x, std::int64_t size, std::int64_t width)
    : size_(size),
      width_(width),
      stride_((size + kStrip - 1) / kStrip * kStrip),
      unit_(size * width),
      root_(stride_),
      table_(2 * program.size * stride_),
      nngp_(program.outputs * size),
      ntk_(program.outputs * size) {
  std::vector<PointState> slots(program.slots);
  for (std::int64_t n = 0; n < size; ++n) {
    const double norm2 = squared_norm(x + n * width, width);
    const double scale = norm2 > 0 ? 1 / std::sqrt(norm2) : 0;
    for (std::int64_t k = 0; k < width; ++k) unit_[n * width + k] = T(x[n * width + k] * scale);
    root_[n] = T(std::sqrt(norm2 / double(width)));
    slots[0] = {norm2 / double(width), 0};
    follow_point(
        program, slots.data(),
        [&](int op, int which, double value) { table_[(2 * std::int64_t(op) + which) * stride_ + n] = T(value); },
        [&](int output, double nngp, double ntk) { nngp_[output * size + n] = nngp, ntk_[output * size + n] = ntk; });
  }
}

template <class T>
PointsView<T> Points<T>::view() const {
  return {size_, width_, stride_, unit_.data(), root_.data(), table_.data(), nngp_.data(), ntk_.data()};
}

template class Points<float>;
template class Points<double>;

}  // namespace ntk
