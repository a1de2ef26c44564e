// The dual of a polynomial with two kinks:
//   phi(z) = a + b z + e z^2 + psi(z), psi = sum over j of alpha_j y_j + beta_j y_j^2,
//   y_j = (s_j (z - t_j))_+, s_j = +-1,
// with kinks that look outward, s_j t_j >= 0: at small variances psi is small, and nothing cancels.
// It needs moments M_nm = E[y^n y'^m] of a bivariate Gaussian beyond a corner, all from the
// probability of the corner, M_00 (Owen 1956), by integration by parts.
#pragma once

#include "constants.h"
#include "dual.h"
#include "pack.h"

namespace ntk {

// Q(x)/phi(x) (x + 1) of the normal distribution's tail Q and density phi, x >= 0: Chebyshev
// coefficients in (4 - x)/(4 + x), by tools/fit_tail.py. Largest relative error 2e-15.
struct Tail {
  static NTK_HD constexpr double at(int k) {
    constexpr double values[] = {
        1.1670525350882472,      0.16101957671346539,     -0.028002821825452975,
        -0.031674521892392659,   -0.012103231162345369,   -0.0027056129762167095,
        -0.00029931636202703166, 1.716686526879361e-5,    1.0178489264109867e-5,
        4.8948295700041918e-7,   -2.8440065001510478e-7,  -3.0766283713811504e-8,
        9.1803786744695372e-9,   1.2756102213808736e-9,   -3.6602793761041338e-10,
        -4.5926359348595205e-11, 1.7189314687646527e-11,  1.2726833698700694e-12,
        -8.6680819133161884e-13, -1.1061557204136741e-15, 4.2750210770103334e-14,
        -3.7909376922639045e-15, -1.8474103010592332e-15, 4.0419094130708178e-16,
    };
    return values[k];
  }
};

constexpr double kInverseRootOf2Pi = 0.39894228040143267794;

template <class V>
NTK_HD V normal_density(V x) {
  using T = typename Scalar<V>::type;
  return T(kInverseRootOf2Pi) * exp(T(-0.5) * x * x);
}

// Q(x) = P(z > x).
template <class V>
NTK_HD V normal_tail(V x) {
  using T = typename Scalar<V>::type;
  const V ax = abs(x), y = (T(4) - ax) / (T(4) + ax);
  V b1 = V{}, b2 = V{};
  for (int k = 23; k > 0; --k) {
    const V b = T(2) * y * b1 - b2 + T(Tail::at(k));
    b2 = b1;
    b1 = b;
  }
  const V q = normal_density(ax) * (y * b1 - b2 + T(Tail::at(0))) / (ax + T(1));
  return select(x < V{}, T(1) - q, q);
}

// Owen's T(h, a) = (1/2pi) times the integral of e^{-h^2 (1 + x^2)/2}/(1 + x^2) over 0 <= x <= a,
// 0 <= a <= 1: Gauss-Legendre.
struct OwenRule {
  static constexpr int size = 12;
  static NTK_HD constexpr double node(int k) {
    constexpr double values[] = {
        0.009219682876640378, 0.0479413718147626,  0.11504866290284765, 0.20634102285669126,
        0.31608425050090994,  0.43738329574426554, 0.5626167042557344,  0.6839157494990901,
        0.7936589771433087,   0.8849513370971523,  0.9520586281852375,  0.9907803171233596,
    };
    return values[k];
  }
  static NTK_HD constexpr double weight(int k) {
    constexpr double values[] = {
        0.003754093988968122, 0.008509961171535326, 0.012738628634781013, 0.016167550119118173,
        0.01858074568257206,  0.019826491948972975, 0.019826491948972975, 0.01858074568257206,
        0.016167550119118173, 0.012738628634781013, 0.008509961171535326, 0.003754093988968122,
    };
    return values[k];
  }
};

template <class V>
NTK_HD V owen(V h, V a) {
  using T = typename Scalar<V>::type;
  V sum = V{};
  for (int k = 0; k < OwenRule::size; ++k) {
    const V x = a * T(OwenRule::node(k)), y = x * x + T(1);
    sum = sum + T(OwenRule::weight(k)) * exp(T(-0.5) * h * h * y) / y;
  }
  return a * sum;
}

// |T(h, b/h)|, whichever is larger: T(h, a) + T(b, 1/a) = (Q(h) + Q(b))/2 - Q(h) Q(b), b = a h.
template <class V>
NTK_HD V owen_of(V h, V b, V tail_h, V tail_b) {
  using T = typename Scalar<V>::type;
  const auto steep = b > h;
  const V inner = owen(select(steep, b, h), select(steep, h / b, b / h));
  return select(steep, T(0.5) * (tail_h + tail_b) - tail_h * tail_b - inner, inner);
}

// Moments M_nm of a corner (t, t'), n, m <= 2; of standard deviations r and r'.
template <class V>
struct Corner {
  V m00, m10, m01, m11, m20, m02, m21, m12, m22;
};

// A kink as a point of standard deviation r sees it, t >= 0.
template <class V>
struct SeenKink {
  V h, density, tail;  // t/r, phi(h), Q(h)
};
template <class V, class T>
NTK_HD SeenKink<V> seen(T t, V inverse) {
  // At t = 0 a positive h, of which only ratios count.
  const V h = max(min(t * inverse, V{} + T(40)), V{} + T(1e-15));
  return {h, normal_density(h), normal_tail(h)};
}

// Of pairs with correlation c and s = sqrt(1 - c^2).
template <class V, class T>
NTK_HD Corner<V> corner(T t, T u, V K, V r, V o, V c, V s, const SeenKink<V>& x,
                        const SeenKink<V>& y) {
  // (h' - c h)/s and (h - c h')/s, whose slopes are large where c is near 1.
  const V defect = T(1) - c, b = (y.h - x.h + defect * x.h) / s, d = (x.h - y.h + defect * y.h) / s;
  const V tail_b = normal_tail(abs(b)), tail_d = normal_tail(abs(d));
  const V zero = V{}, one = V{} + T(1), minus = V{} - T(1);
  const V own = select(b < zero, minus, one) * owen_of(x.h, abs(b), x.tail, tail_b) +
                select(d < zero, minus, one) * owen_of(y.h, abs(d), y.tail, tail_d);
  Corner<V> m;
  m.m00 = T(0.5) * (x.tail + y.tail) - own;
  // Densities on the corner's edges, and at its tip times 1 - c^2.
  const V U = x.density * select(b < zero, T(1) - tail_b, tail_b),
          W = y.density * select(d < zero, T(1) - tail_d, tail_d),
          tip = s * x.density * normal_density(b);
  const V q = r * r, p = o * o;
  m.m10 = r * (U + c * W) - t * m.m00;
  m.m01 = o * (W + c * U) - u * m.m00;
  m.m11 = r * o * tip + K * m.m00 - u * r * U - t * o * W + (t * u) * m.m00;
  m.m20 = q * (m.m00 + c * (tip - (x.h - c * y.h) * W)) - t * m.m10;
  m.m02 = p * (m.m00 + c * (tip - (y.h - c * x.h) * U)) - u * m.m01;
  m.m21 = q * m.m01 + K * m.m10 - t * m.m11;
  m.m12 = p * m.m10 + K * m.m01 - u * m.m11;
  m.m22 = q * m.m02 + T(2) * K * m.m11 - t * m.m12;
  return m;
}

template <class T>
struct Kinks {
  static constexpr int kTable = 11;  // a, b, e, then twice s, t, alpha, beta
  struct Kink {
    T side, t, alpha, beta;  // s, s t, …
  };
  T a, b, e;
  Kink kinks[2];
  explicit NTK_HD Kinks(const Constants& c) : a(T(c.table[0])), b(T(c.table[1])), e(T(c.table[2])) {
    for (int j = 0; j < 2; ++j) {
      const double* p = c.table + 3 + 4 * j;
      kinks[j] = {T(p[0]), T(p[0] * p[1]), T(p[2]), T(p[3])};
    }
  }

  template <class S>
  NTK_HD void side(S q, S* f) const {
    f[1] = sqrt(q);
    f[0] = q > 1e-34 ? 1.0 / f[1] : S(1e17);
  }
  template <class V>
  NTK_HD void pair(V K, V r0, V r1, V c0, V c1, V& E, V& D) const {
    // At a bound c is a constant: its slopes, infinite there, cancel.
    const V c = max(V{} - T(1), min(V{} + T(1), K * r0 * c0)), y = T(1) - abs(c);
    between(K, c, sqrt(max(y * (T(2) - y), V{})), r0, r1, c0, c1, E, D);
  }
  template <class S>
  NTK_HD void diag(S q, S& E, S& D) const {
    S f[2];
    side(q, f);
    between(q, S(1.0), S(0.0), f[0], f[1], f[0], f[1], E, D);
  }

 private:
  // E of psi, psi' and psi'' of one point.
  template <class V>
  struct Means {
    V psi, slope, curvature;
  };
  template <class V>
  NTK_HD Means<V> means(const SeenKink<V> (&x)[2], V inverse, V r) const {
    Means<V> m{};
    for (int j = 0; j < 2; ++j) {
      const Kink& k = kinks[j];
      const V first = r * x[j].density - k.t * x[j].tail,
              second = (r * r + k.t * k.t) * x[j].tail - k.t * r * x[j].density;
      m.psi = m.psi + k.alpha * first + k.beta * second;
      m.slope = m.slope + k.side * (k.alpha * x[j].tail + T(2) * k.beta * first);
      m.curvature = m.curvature + k.alpha * x[j].density * inverse + T(2) * k.beta * x[j].tail;
    }
    return m;
  }

  template <class V>
  NTK_HD void between(V K, V c, V sine, V inverse, V r, V other_inverse, V o, V& E, V& D) const {
    const V s = max(sine, V{} + T(1e-15)), q = r * r, p = o * o;
    const SeenKink<V> x[2] = {seen(kinks[0].t, inverse), seen(kinks[1].t, inverse)},
                      y[2] = {seen(kinks[0].t, other_inverse), seen(kinks[1].t, other_inverse)};
    const Means<V> mine = means(x, inverse, r), other = means(y, other_inverse, o);
    // The polynomial, and what it has in common with psi (Stein 1981).
    E = a * a + (a * e) * (q + p) + b * b * K + e * e * (q * p + T(2) * K * K) +
        a * (mine.psi + other.psi) + b * K * (mine.slope + other.slope) +
        e * (p * mine.psi + q * other.psi + K * K * (mine.curvature + other.curvature));
    D = b * b + T(4) * e * e * K + b * (mine.slope + other.slope) +
        T(2) * e * K * (mine.curvature + other.curvature);
    // psi with psi; kinks as far from 0 share corners.
    Corner<V> corners[2];
    for (int i = 0; i < 2; ++i)
      for (int j = 0; j < 2; ++j) {
        const Kink &k = kinks[i], &l = kinks[j];
        const T turn = k.side * l.side;
        Corner<V>& m = corners[i != j];
        if (i == 0 || kinks[0].t != kinks[1].t)
          m = corner(k.t, l.t, turn * K, r, o, turn * c, s, x[i], y[j]);
        const T aa = k.alpha * l.alpha, ab = k.alpha * l.beta, ba = k.beta * l.alpha,
                bb = k.beta * l.beta;
        E = E + (aa * m.m11 + ab * m.m12 + ba * m.m21 + bb * m.m22);
        D = D + turn * (aa * m.m00 + T(2) * (ab * m.m01 + ba * m.m10) + T(4) * bb * m.m11);
      }
  }
};

// In double: parts of phi as large as q cancel where it is bounded.
template <>
struct Kinks<float> {
  Kinks<double> exact;
  explicit NTK_HD Kinks(const Constants& c) : exact(c) {}

  template <class S>
  NTK_HD void side(S q, S* f) const {
    exact.side(q, f);
  }
  template <class S>
  NTK_HD void diag(S q, S& E, S& D) const {
    exact.diag(q, E, D);
  }
  template <class V>
  NTK_HD void pair(V K, V, V r, V, V o, V& E, V& D) const {
    const auto ks = doubles(K), rs = doubles(r), os = doubles(o);
    auto es = ks, ds = ks;
    for (int i = 0; i < count(ks); ++i) in_double(ks.v[i], rs.v[i], os.v[i], es.v[i], ds.v[i]);
    E = floats(es);
    D = floats(ds);
  }

 private:
  // From the roots of variances as they were rounded, which bound K.
  template <class V>
  NTK_HD void in_double(V K, V r, V o, V& E, V& D) const {
    const V most = r * o, least = V{} + 1e-17;
    exact.pair(max(min(K, most), -most), 1.0 / max(r, least), r, 1.0 / max(o, least), o, E, D);
  }
};

}  // namespace ntk
