#include "slopes.h"

#include "../math/jet.h"
#include "points.h"

namespace ntk {
namespace {

using Jet1 = Jet<double, 1>;

// An op on a point with itself: its new variance. put(which, value) receives what the sweep needs.
template <class Put>
double step(const Op& op, double q, double other, const Put& put) {
  put(Slope::q, q);
  if (of_two_slots(op.kind)) {
    double none = 0;
    put(Slope::f0, other);
    combine(op.kind, q, none, other, none);
    return q;
  }
  if (op.kind == OpKind::affine) return op.constants.affine().nngp(q);
  const WithItself<Jet1> r = with_itself(op.pointwise, op.constants, Jet1::variable(q, 0, 1));
  const auto put_both = [&](Slope value, Slope slope, const Jet1& jet) {
    put(value, jet.v);
    put(slope, jet.d[0]);
  };
  put_both(Slope::f0, Slope::df0, r.f[0]);
  put_both(Slope::f1, Slope::df1, r.f[1]);
  put_both(Slope::variance, Slope::dvariance, r.E);
  put_both(Slope::factor, Slope::dfactor, r.D);
  return r.E.v;
}

}  // namespace

Slopes::Slopes(const Program& program, const PointsView<double>& points)
    : table_(int(Slope::count) * program.size * points.stride) {
  std::vector<double> slots(program.slots);
  for (std::int64_t n = 0; n < points.size; ++n) {
    slots[0] = points.root[n] * points.root[n];
    const auto step_of = [&](int i, const Op& op, double q, double other) {
      return step(op, q, other, [&](Slope which, double value) {
        table_[(int(Slope::count) * std::int64_t(i) + int(which)) * points.stride + n] = value;
      });
    };
    follow_point(program, slots.data(), step_of, [](const Op&, double) {});
  }
}

}  // namespace ntk
