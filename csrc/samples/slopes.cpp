#include "slopes.h"

#include "../math/jet.h"

namespace ntk {
namespace {

using Jet1 = Jet<double, 1>;

// The op on a point with itself: its new variance. `put` receives what the sweep needs.
template <class Put>
double follow(const Op& op, double q, const Put& put) {
  put(Slope::q, q);
  if (op.kind == OpKind::affine) return op.p[0] * q + op.p[1];
  const Jet1 x = Jet1::variable(q, 0, 1);
  Jet1 f[2]{}, variance{}, factor{};
  if (op.kind == OpKind::dual) {
    visit_dual<double>(op.dual, op.p, [&](const auto& phi) { phi.side(x, f), phi.diag(x, variance, factor); });
  } else {
    f[0] = 1.0 / sqrt(x + op.p[0]), f[1] = Jet1(0.0);  // normalize
    factor = f[0] * f[0], variance = x * factor;
  }
  put(Slope::f0, f[0].v), put(Slope::f1, f[1].v), put(Slope::df0, f[0].d[0]), put(Slope::df1, f[1].d[0]);
  put(Slope::variance, variance.v), put(Slope::dvariance, variance.d[0]);
  put(Slope::factor, factor.v), put(Slope::dfactor, factor.d[0]);
  return variance.v;
}

}  // namespace

Slopes::Slopes(const Program& program, const PointsView<double>& points)
    : table_(int(Slope::count) * program.size * points.stride) {
  std::vector<double> slots(program.slots);
  for (std::int64_t n = 0; n < points.size; ++n) {
    slots[0] = points.root[n] * points.root[n];
    for (int i = 0; i < program.size; ++i) {
      const Op& op = program.ops[i];
      double& q = slots[op.slot];
      if (op.kind == OpKind::copy) {
        q = slots[op.other];
      } else if (op.kind == OpKind::add) {
        q += slots[op.other];
      } else if (op.kind != OpKind::emit) {
        q = follow(op, q, [&](Slope which, double value) {
          table_[(int(Slope::count) * std::int64_t(i) + int(which)) * points.stride + n] = value;
        });
      }
    }
  }
}

}  // namespace ntk
