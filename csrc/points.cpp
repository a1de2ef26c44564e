#include "points.h"

namespace ntk {
namespace {

// Variance q (= K at x' = x) and tangent kernel t of one point.
struct State {
  double q, t;
};

double root_of_ratio(double numerator, double denominator) {
  return denominator > 0 ? std::sqrt(numerator / denominator) : 0;
}

// One op on one point: returns the op's two features in f.
State step(const Op& op, State s, double* f) {
  f[0] = f[1] = 0;
  if (op.kind == OpKind::affine) {
    const double q = op.p[0] * s.q + op.p[1];
    f[0] = root_of_ratio(op.p[0] * s.q, q), f[1] = root_of_ratio(op.p[1], q);
    return {q, op.p[0] * s.t + op.p[2] * s.q + op.p[3]};
  }
  if (op.kind == OpKind::dual) {
    State out{};
    visit_dual<double>(op.dual, op.p, [&](const auto& phi) {
      double d;
      phi.side(s.q, f);
      phi.diag(s.q, out.q, d);
      out.t = d * s.t;
    });
    return out;
  }
  f[0] = 1 / std::sqrt(s.q + op.p[0]);  // normalize
  return {s.q * f[0] * f[0], s.t * f[0] * f[0]};
}

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
  std::vector<State> slots(program.slots);
  for (std::int64_t n = 0; n < size; ++n) {
    const double norm2 = squared_norm(x + n * width, width);
    const double scale = norm2 > 0 ? 1 / std::sqrt(norm2) : 0;
    for (std::int64_t k = 0; k < width; ++k) unit_[n * width + k] = T(x[n * width + k] * scale);
    root_[n] = T(std::sqrt(norm2 / double(width)));
    slots[0] = {norm2 / double(width), 0};
    for (int i = 0; i < program.size; ++i) {
      const Op& op = program.ops[i];
      State& s = slots[op.slot];
      if (op.kind == OpKind::copy) {
        s = slots[op.other];
      } else if (op.kind == OpKind::add) {
        s.q += slots[op.other].q, s.t += slots[op.other].t;
      } else if (op.kind == OpKind::emit) {
        nngp_[op.other * size + n] = op.p[0] * s.q + op.p[1];
        ntk_[op.other * size + n] = op.p[0] * s.t + op.p[2] * s.q + op.p[3];
      } else {
        double f[2];
        s = step(op, s, f);
        table_[(2 * i) * stride_ + n] = T(f[0]), table_[(2 * i + 1) * stride_ + n] = T(f[1]);
      }
    }
  }
}

template <class T>
PointsView<T> Points<T>::view() const {
  return {size_, width_, stride_, unit_.data(), root_.data(), table_.data(), nngp_.data(), ntk_.data()};
}

template class Points<float>;
template class Points<double>;

}  // namespace ntk
