// Jets: a value and its derivatives with respect to N variables, carried through the formulas of
// dual.h by the chain rule.
// V is double or a vector of doubles, whose functions (cpu/simd.h) must be declared before this
// header.
#pragma once

#include "dual.h"

namespace ntk {

template <class V, int N>
struct Jet {
  using T = typename Scalar<V>::type;
  V v;
  V d[N];

  Jet() = default;
  NTK_HD Jet(T c) : v(V{} + c), d{} {}
  NTK_HD explicit Jet(V value, bool) : v(value), d{} {}

  // Variable number i at `value`, or a function of it alone with this slope.
  static NTK_HD Jet variable(V value, int i, V slope) {
    Jet x(value, true);
    x.d[i] = slope;
    return x;
  }
  // f(x), of which `value` and `slope` are given.
  NTK_HD Jet chain(V value, V slope) const {
    Jet y(value, true);
    for (int i = 0; i < N; ++i) y.d[i] = slope * d[i];
    return y;
  }

  friend NTK_HD Jet operator-(Jet a) { return a.chain(-a.v, V{} - T(1)); }
  friend NTK_HD Jet operator+(Jet a, Jet b) {
    for (int i = 0; i < N; ++i) a.d[i] = a.d[i] + b.d[i];
    a.v = a.v + b.v;
    return a;
  }
  friend NTK_HD Jet operator-(Jet a, Jet b) {
    for (int i = 0; i < N; ++i) a.d[i] = a.d[i] - b.d[i];
    a.v = a.v - b.v;
    return a;
  }
  friend NTK_HD Jet operator*(Jet a, Jet b) {
    for (int i = 0; i < N; ++i) a.d[i] = a.d[i] * b.v + a.v * b.d[i];
    a.v = a.v * b.v;
    return a;
  }
  friend NTK_HD Jet operator/(Jet a, Jet b) {
    const V inverse = T(1) / b.v, q = a.v * inverse;
    for (int i = 0; i < N; ++i) a.d[i] = (a.d[i] - q * b.d[i]) * inverse;
    a.v = q;
    return a;
  }
  friend NTK_HD Jet operator+(Jet a, T c) {
    a.v = a.v + c;
    return a;
  }
  friend NTK_HD Jet operator+(T c, Jet a) {
    a.v = c + a.v;
    return a;
  }
  friend NTK_HD Jet operator-(Jet a, T c) {
    a.v = a.v - c;
    return a;
  }
  friend NTK_HD Jet operator-(T c, Jet a) { return a.chain(c - a.v, V{} - T(1)); }
  friend NTK_HD Jet operator*(Jet a, T c) { return a.chain(a.v * c, V{} + c); }
  friend NTK_HD Jet operator*(T c, Jet a) { return a.chain(a.v * c, V{} + c); }
  friend NTK_HD Jet operator/(T c, Jet a) {
    const V inverse = T(1) / a.v;
    return a.chain(c * inverse, -c * inverse * inverse);
  }
  friend NTK_HD auto operator<(Jet a, Jet b) { return a.v < b.v; }
  friend NTK_HD auto operator>(Jet a, Jet b) { return a.v > b.v; }
  friend NTK_HD auto operator<(Jet a, T c) { return a.v < V{} + c; }
  friend NTK_HD auto operator>(Jet a, T c) { return a.v > V{} + c; }
};

template <class V, int N>
struct Scalar<Jet<V, N>> {
  using type = typename Scalar<V>::type;
};

template <class Mask, class V, int N>
NTK_HD Jet<V, N> select(Mask mask, Jet<V, N> a, Jet<V, N> b) {
  for (int i = 0; i < N; ++i) a.d[i] = select(mask, a.d[i], b.d[i]);
  a.v = select(mask, a.v, b.v);
  return a;
}
// Where a root is 0 its slope is infinite; what it is multiplied by there is 0, and 0 is returned.
template <class V, int N>
NTK_HD Jet<V, N> sqrt(Jet<V, N> x) {
  using T = typename Scalar<V>::type;
  const V root = sqrt(x.v);
  return x.chain(root, select(root > V{}, T(0.5) / root, V{}));
}
template <class V, int N>
NTK_HD int highest(Jet<V, N> x, int limit) {
  return highest(x.v, limit);
}
template <class V, int N>
NTK_HD Jet<V, N> max(Jet<V, N> a, Jet<V, N> b) {
  return select(a < b, b, a);
}
template <class V, int N>
NTK_HD Jet<V, N> min(Jet<V, N> a, Jet<V, N> b) {
  return select(a > b, b, a);
}
template <class V, int N>
NTK_HD Jet<V, N> exp(Jet<V, N> x) {
  const V e = exp(x.v);
  return x.chain(e, e);
}
template <class V, int N>
NTK_HD Jet<V, N> abs(Jet<V, N> x) {
  using T = typename Scalar<V>::type;
  return x.chain(abs(x.v), if_negative(x.v, V{} - T(1), V{} + T(1)));
}
template <int N>
NTK_HD Jet<double, N> inverse_or_zero(Jet<double, N> x) {
  return x.v > 0 ? 1.0 / x : Jet<double, N>(0.0);
}
// sqrt(1 - x^2), without cancellation at x = +-1.
template <class V>
NTK_HD V cosine_of_arcsin(V x) {
  using T = typename Scalar<V>::type;
  const V y = T(1) - abs(x);
  return sqrt(max(y * (T(2) - y), V{}));
}
// Infinite slopes at x = +-1 are 0, as those of kappa0 below.
template <class V, int N>
NTK_HD Jet<V, N> arcsin(Jet<V, N> x) {
  using T = typename Scalar<V>::type;
  const V cosine = cosine_of_arcsin(x.v);
  return x.chain(arcsin(x.v), select(cosine > V{}, T(1) / cosine, V{}));
}
template <class V, int N>
NTK_HD Jet<V, N> arcsin_with(Jet<V, N> u, Jet<V, N> v) {
  using T = typename Scalar<V>::type;
  return u.chain(arcsin(u.v), T(1) / sqrt(v.v));
}
// The bound is for rounding: equal points lie on it, and their slopes are those of the formula.
template <class V, int N>
NTK_HD Jet<V, N> rest_of_square(Jet<V, N> u, Jet<V, N> ff) {
  using T = typename Scalar<V>::type;
  Jet<V, N> v = T(1) - u * u;
  v.v = rest_of_square(u.v, ff.v);
  return v;
}
template <class V, int N>
NTK_HD Jet<V, N> decay(Jet<V, N> z) {
  const V e = decay(z.v);
  return z.chain(e, e);
}
template <class V, int N>
NTK_HD Jet<V, N> expm1_series(Jet<V, N> z) {
  using T = typename Scalar<V>::type;
  const V e = expm1_series(z.v);
  return z.chain(e, e + T(1));
}
// kappa1' = kappa0, kappa0'(c) = 1/(pi sqrt(1 - c^2)): infinite at c = +-1, where 0 is returned,
// the mean of the slopes on either side of the kink in the points.
template <class V, int N>
NTK_HD void kappa(Jet<V, N> c, Jet<V, N>& k0, Jet<V, N>& k1) {
  using T = typename Scalar<V>::type;
  V value0, value1;
  kappa(c.v, value0, value1);
  const V sine = cosine_of_arcsin(c.v);
  k0 = c.chain(value0, select(sine > V{}, T(1 / kPi) / sine, V{}));
  k1 = c.chain(value1, value0);
}

}  // namespace ntk
