// Dual activations: for pre-activations (z, z') ~ N(0, [[q, K], [K, q']]) and an activation phi,
//   E = E[phi(z) phi(z')]   and   D = E[phi'(z) phi'(z')].
// The only place where this mathematics stands: CPU and GPU, float and double, scalars and vectors.
//
// A struct Phi<T> holds an activation's constants and offers
//   side(q, f)                     the two features of a point that pair() needs; q is its variance
//   pair(K, r0, r1, c0, c1, E, D)  E and D of a pair, from the features of its row and its column
//   diag(q, E, D)                  the same where z' is z: K = q exactly, no rounded correlation
// V is T or a vector of T; S is a scalar; both may be jets of them (jet.h), with derivatives.
// To add an activation: write its struct, and one line in NTK_FOR_EACH_DUAL.
#pragma once

#include "portable.h"

namespace ntk {

constexpr double kPi = 3.14159265358979323846;

// acos(1 - y) = pi sqrt(y) A(y), kappa1(1 - y) = 1 - y + y sqrt(y) C(y),
// acos(c) = pi sqrt(1 - c^2) B(c) on 0 <= y, c <= 1: A, B and C are smooth there. Near-minimax fits
// by tools/fit_dual.py, lowest power first. Largest error: float A 6.4e-8, B 3.8e-8, C 4.7e-8;
// double A 4.0e-16, B 1.0e-16, C 1.1e-16.
template <class T>
struct Coefficients;

template <>
struct Coefficients<float> {
  struct A {
    static constexpr int size = 7;
    static NTK_HD constexpr float at(int k) {
      constexpr float values[] = {0.45015819f,   0.037509649f,    0.0084956933f, 0.0021952971f,
                                  0.0016915896f, -0.00075320581f, 0.00070271873f};
      return values[k];
    }
  };
  struct B {
    static constexpr int size = 9;
    static NTK_HD constexpr float at(int k) {
      constexpr float values[] = {0.49999996f,  -0.31830357f,  0.24982673f,
                                  -0.210326f,   0.17690039f,   -0.13429358f,
                                  0.079617747f, -0.030582038f, 0.0054702729f};
      return values[k];
    }
  };
  struct C {
    static constexpr int size = 6;
    static NTK_HD constexpr float at(int k) {
      constexpr float values[] = {0.30010541f,    0.015007358f,   0.0023878848f,
                                  0.00065371408f, -1.0112492e-5f, 0.0001655855f};
      return values[k];
    }
  };
};

template <>
struct Coefficients<double> {
  struct A {
    static constexpr int size = 17;
    static NTK_HD constexpr double at(int k) {
      constexpr double values[] = {
          0.45015815807855325,    0.037513179839757862,    0.0084404654755947953,
          0.0025120428545039484,  0.00085480117959671851,  0.00031461543513327426,
          0.00012286742302246964, 4.470335885033153e-5,    3.7406001121511572e-5,
          -3.9754949430095626e-5, 0.00010440171174478019,  -0.00015305626397848099,
          0.00017396119712402493, -0.00013775604543144633, 7.4652684440915854e-5,
          -2.4549539790818016e-5, 3.861559186565802e-6};
      return values[k];
    }
  };
  struct B {
    static constexpr int size = 20;
    static NTK_HD constexpr double at(int k) {
      constexpr double values[] = {
          0.4999999999999999,     -0.31830988618370957,  0.24999999998914772,
          -0.21220659020983214,   0.18749998355174736,   -0.16976498556177422,
          0.1562466408522117,     -0.14548518851940393,  0.13654752905959098,
          -0.12854579001046721,   0.1201460323472443,    -0.10925202212849447,
          0.093548855285596589,   -0.072294019640670727, 0.048084612503723878,
          -0.026173482255578502,  0.011014812726138191,  -0.0033249743355411315,
          0.00063597767109936737, -5.7618957237489081e-5};
      return values[k];
    }
  };
  struct C {
    static constexpr int size = 16;
    static NTK_HD constexpr double at(int k) {
      constexpr double values[] = {
          0.3001054387190353,     0.015005271935981597,   0.0024115615586107687,
          0.0005582319269919874,  0.00015541535319362329, 4.843370701406519e-5,
          1.6168495672590503e-5,  6.2738682049061173e-6,  4.863271207255582e-7,
          4.7812969998011391e-6,  -6.5697134122400947e-6, 8.7489390963780838e-6,
          -7.5415407265989184e-6, 4.5188160406907098e-6,  -1.6148755497423985e-6,
          2.8136951671536936e-7};
      return values[k];
    }
  };
};

// Values of a polynomial; Table::at(k) is its coefficient number k.
template <class Table, class V>
NTK_HD V horner(V y) {
  V p = y * Table::at(Table::size - 1) + Table::at(Table::size - 2);
  for (int k = Table::size - 3; k >= 0; --k) p = p * y + Table::at(k);
  return p;
}

template <class T>
struct Fit {
  template <class V>
  static NTK_HD V A(V y) {
    return horner<typename Coefficients<T>::A>(y);
  }
  template <class V>
  static NTK_HD V C(V y) {
    return horner<typename Coefficients<T>::C>(y);
  }
};

// arcsin with small relative error everywhere: asin(x) = x (pi/sqrt 2) A(2 x^2) for |x| <= 1/2,
// else by acos.
template <class V>
NTK_HD V arcsin(V x) {
  using T = typename Scalar<V>::type;
  const V ax = abs(x);
  const V outer = max(V{} + T(1) - ax, V{});
  const auto small = ax <= V{} + T(0.5);
  const V p = Fit<T>::A(small ? T(2) * x * x : outer);
  const V far = T(kPi / 2) - T(kPi) * sqrt(outer) * p;
  return small ? T(kPi / 1.41421356237309504880) * x * p : (x < V{} ? -far : far);
}

// kappa0(c) = (pi - acos c)/pi and kappa1(c) = [sqrt(1 - c^2) + c (pi - acos c)]/pi without
// cancellation at c = +-1.
template <class V>
NTK_HD void kappa(V c, V& k0, V& k1) {
  using T = typename Scalar<V>::type;
  const V y = max(V{} + T(1) - abs(c), V{});
  const V t = sqrt(y);
  const V u = t * Fit<T>::A(y);
  k0 = c < V{} ? u : T(1) - u;
  k1 = max(c, V{}) + y * t * Fit<T>::C(y);
}

NTK_HD double inverse_or_zero(double x) { return x > 0 ? 1 / x : 0; }

// phi(z) = a z (z < 0), b z (z > 0), g = (a-b)^2/2, h = ab:
// E = sqrt(qq') (g kappa1 + h c), D = g kappa0 + h. ReLU, leaky ReLU, |z| and the arc-cosine kernel
// of order 1 are members.
template <class T>
struct ABRelu {
  T g, h;
  explicit NTK_HD ABRelu(const double* p)
      : g(T((p[0] - p[1]) * (p[0] - p[1]) / 2)), h(T(p[0] * p[1])) {}
  template <class S>
  NTK_HD void side(S q, S* f) const {
    f[1] = sqrt(q);
    f[0] = inverse_or_zero(f[1]);
  }
  template <class V>
  NTK_HD void pair(V K, V r0, V r1, V c0, V c1, V& E, V& D) const {
    const V c = K * r0 * c0;
    V k0, k1;
    kappa(c, k0, k1);
    E = r1 * c1 * (g * k1 + h * c);
    D = g * k0 + h;
  }
  // No angle exists at q = 0: kappa0(0) = 1/2, as for a pair with a zero vector.
  template <class S>
  NTK_HD void diag(S q, S& E, S& D) const {
    E = q * (g + h);
    D = q > 0 ? g + h : g / 2 + h;
  }
};

// Diagonal of the smooth duals: pair() at K = q loses nothing there.
template <class S, class Phi>
NTK_HD void smooth_diag(const Phi& phi, S q, S& E, S& D) {
  S f[2];
  phi.side(q, f);
  phi.pair(q, f[0], f[1], f[0], f[1], E, D);
}

// asin(u) of u = 1 - y, where y is known to all digits and u is not.
template <class S>
NTK_HD S arcsin_beside_1(S u, S y) {
  using T = typename Scalar<S>::type;
  return y < T(0.5) ? T(kPi / 2) - T(kPi) * sqrt(y) * Fit<T>::A(y) : arcsin(u);
}

// 1 - u^2 of |u| <= sqrt((1 - f^2)(1 - f'^2)): at least ff'(2 - ff'), whatever rounding leaves.
template <class V>
NTK_HD V rest_of_square(V u, V ff) {
  using T = typename Scalar<V>::type;
  return max(ff * (T(2) - ff), T(1) - u * u);
}

// asin(u), whose slope is 1/sqrt(v) of v = 1 - u^2: jet.h asks for it.
template <class V>
NTK_HD V arcsin_with(V u, V) {
  return arcsin(u);
}

// phi(z) = a erf(bz) + c, u = 2b^2 K f f', f = 1/sqrt(1 + 2b^2 q): E = a^2 (2/pi) asin u + c^2,
// D = a^2 (4b^2/pi) f f'/sqrt(1 - u^2)   (Williams 1997).
template <class T>
struct Erf {
  T a2, b2, c2;
  explicit NTK_HD Erf(const double* p)
      : a2(T(p[0] * p[0])), b2(T(p[1] * p[1])), c2(T(p[2] * p[2])) {}
  template <class S>
  NTK_HD void side(S q, S* f) const {
    f[0] = 1 / sqrt(1 + 2 * double(b2) * q);
    f[1] = 0;
  }
  template <class V>
  NTK_HD void pair(V K, V r0, V, V c0, V, V& E, V& D) const {
    const V ff = r0 * c0, u = T(2) * b2 * K * ff, v = rest_of_square(u, ff);
    E = a2 * T(2 / kPi) * arcsin_with(u, v) + c2;
    D = a2 * b2 * T(4 / kPi) * ff / sqrt(v);
  }
  // u = 1 - f^2
  template <class S>
  NTK_HD void diag(S q, S& E, S& D) const {
    S f[2];
    side(q, f);
    const S y = f[0] * f[0];
    E = a2 * T(2 / kPi) * arcsin_beside_1(T(2) * b2 * q * y, y) + c2;
    D = a2 * b2 * T(4 / kPi) * f[0] / sqrt(T(2) - y);
  }
};

// phi(z) = z Phi(z), u = K f f', f = 1/sqrt(1 + q), v = 1 - u^2:
// E = K/4 + [K asin u + f f' (u^2 + q q' v)/sqrt v]/2pi,
// D = 1/4 + {asin u + u/sqrt v [(f f')^2/v + f^2 + f'^2]}/2pi   (Tsuchida et al. 2020).
template <class T>
struct Gelu {
  explicit NTK_HD Gelu(const double*) {}
  template <class S>
  NTK_HD void side(S q, S* f) const {
    f[0] = 1 / sqrt(1 + q);
    f[1] = q;
  }
  template <class V>
  NTK_HD void pair(V K, V r0, V r1, V c0, V c1, V& E, V& D) const {
    const V ff = r0 * c0, u = K * ff, v = rest_of_square(u, ff), w = T(1) / sqrt(v);
    const V s = arcsin_with(u, v), qq = r1 * c1;
    E = T(0.25) * K + T(0.5 / kPi) * (K * s + ff * (u * u + qq * v) * w);
    D = T(0.25) + T(0.5 / kPi) * (s + u * w * (ff * w * ff * w + r0 * r0 + c0 * c0));
  }
  // u = 1 - f^2, v = f^2 (2 - f^2)
  template <class S>
  NTK_HD void diag(S q, S& E, S& D) const {
    S f[2];
    side(q, f);
    const S y = f[0] * f[0], u = q * y, root = sqrt(T(2) - y), s = arcsin_beside_1(u, y);
    E = T(0.25) * q + T(0.5 / kPi) * (q * s + f[0] * (u * u / root + q * u * root));
    D = T(0.25) + T(0.5 / kPi) * (s + u * f[0] / root * (T(1) / (T(2) - y) + T(2)));
  }
};

// e^z - 1 for |z| <= 1/2, by its series: no digits are lost near 0.
template <class V>
NTK_HD V expm1_series(V z) {
  using T = typename Scalar<V>::type;
  V p = z * T(1.0 / (sizeof(T) == 4 ? 9 : 16)) + T(1);
  for (int k = sizeof(T) == 4 ? 8 : 15; k > 1; --k) p = p * z * T(1.0 / k) + T(1);
  return p * z;
}

// e^z of z <= 0, whatever rounding leaves; NaN stays, being second.
template <class V>
NTK_HD V decay(V z) {
  return exp(min(V{}, z));
}

// phi(z) = a sin(bz + c), s = (q + q')/2:
// E, D/b^2 = (a^2/2) [e^{b^2 (K - s)} -+ cos(2c) e^{-b^2 (K + s)}]; for small b^2 K the difference
// is e^{b^2 (K - s)} [1 - cos 2c - cos 2c (e^{-2 b^2 K} - 1)], which does not cancel.
template <class T>
struct Sin {
  T h, b2, k, lost;  // lost = 1 - cos 2c
  explicit NTK_HD Sin(const double* p)
      : h(T(p[0] * p[0] / 2)),
        b2(T(p[1] * p[1])),
        k(T(1 - 2 * ::sin(p[2]) * ::sin(p[2]))),
        lost(T(2 * ::sin(p[2]) * ::sin(p[2]))) {}
  template <class S>
  NTK_HD void side(S q, S* f) const {
    f[0] = double(b2) * q / 2;
    f[1] = 0;
  }
  template <class V>
  NTK_HD void pair(V K, V r0, V, V c0, V, V& E, V& D) const {
    const V s = r0 + c0, x = b2 * K;
    const V near = decay(x - s), far = k * decay(-(x + s));
    E = h * select(abs(x) < V{} + T(0.25), near * (lost - k * expm1_series(T(-2) * x)), near - far);
    D = h * b2 * (near + far);
  }
  template <class S>
  NTK_HD void diag(S q, S& E, S& D) const {
    smooth_diag(*this, q, E, D);
  }
};

// phi(z) = a e^{bz}: E = a^2 e^{b^2 (K + (q + q')/2)}, D = b^2 E.
template <class T>
struct Exp {
  T a2, b2;
  explicit NTK_HD Exp(const double* p) : a2(T(p[0] * p[0])), b2(T(p[1] * p[1])) {}
  template <class S>
  NTK_HD void side(S q, S* f) const {
    f[0] = double(b2) * q / 2;
    f[1] = 0;
  }
  template <class V>
  NTK_HD void pair(V K, V r0, V, V c0, V, V& E, V& D) const {
    E = a2 * exp(b2 * K + r0 + c0);
    D = b2 * E;
  }
  template <class S>
  NTK_HD void diag(S q, S& E, S& D) const {
    smooth_diag(*this, q, E, D);
  }
};

// phi(z) = a e^{b z^2}, u = 2bK f f', f = 1/sqrt(1 - 2bq):
// E = a^2 f f'/sqrt(1 - u^2), D = 2 b u f f' E/(1 - u^2).
// A variance with 4bq >= 1 has no finite moment: f is NaN then, and Python refuses it.
template <class T>
struct Gaussian {
  T a2, b;
  explicit NTK_HD Gaussian(const double* p) : a2(T(p[0] * p[0])), b(T(p[1])) {}
  template <class S>
  NTK_HD void side(S q, S* f) const {
    f[0] = 4 * double(b) * q < 1 - 1e-12 ? 1 / sqrt(1 - 2 * double(b) * q) : S(NAN);
    f[1] = 0;
  }
  template <class V>
  NTK_HD void pair(V K, V r0, V, V c0, V, V& E, V& D) const {
    const V ff = r0 * c0, u = T(2) * b * K * ff, v = rest_of_square(u, ff);
    E = a2 * ff / sqrt(v);
    D = T(2) * b * u * ff * E / v;
  }
  // u = 2bq f^2, v = f^2 (2 - f^2)
  template <class S>
  NTK_HD void diag(S q, S& E, S& D) const {
    S f[2];
    side(q, f);
    const S y = f[0] * f[0];
    E = a2 * f[0] / sqrt(T(2) - y);
    D = T(4) * b * b * q * y * E / (T(2) - y);
  }
};

// The degree of a polynomial, 0 where it is none that Python lets through.
constexpr int kMostDegree = 20;
NTK_HD int degree(double n) { return n >= 0 && n <= kMostDegree ? int(n) : 0; }

// phi(z) = a z^n step(z), E = (a^2/2) (qq')^{n/2} j_n(c), D = (a^2/2) n^2 (qq')^{(n-1)/2} j_{n-1}(c):
// the arc-cosine kernels of order n, j_0 = kappa0, j_1 = kappa1 (Cho & Saul 2009),
// j_{n+1} = (2n + 1) c j_n + n^2 (1 - c^2) j_{n-1}, since j_n' = n^2 j_{n-1}.
// D of n = 0, a step, is infinite: 0 here, and asked for only where it is meant so.
template <class T>
struct Rectified {
  T half;
  int n;
  explicit NTK_HD Rectified(const double* p) : half(T(p[1] * p[1] / 2)), n(degree(p[0])) {}
  template <class S>
  NTK_HD void side(S q, S* f) const {
    f[1] = sqrt(q);
    f[0] = inverse_or_zero(f[1]);
  }
  template <class V>
  NTK_HD void pair(V K, V r0, V r1, V c0, V c1, V& E, V& D) const {
    const V c = K * r0 * c0, s = r1 * c1, y = T(1) - abs(c), v = y * (T(2) - y);
    V below, j, power = V{} + half;
    kappa(c, below, j);
    if (n == 0) {
      E = half * below;
      D = V{};
      return;
    }
    for (int k = 1; k < n; ++k) {
      const V next = T(2 * k + 1) * c * j + T(k * k) * v * below;
      below = j;
      j = next;
      power = power * s;
    }
    E = power * s * j;
    D = T(n * n) * power * below;
  }
  // j_n(1) = (2n - 1)!!. No angle exists at q = 0: kappa0(0) = 1/2, as for a pair with a zero vector.
  template <class S>
  NTK_HD void diag(S q, S& E, S& D) const {
    const T step = q > 0 ? half : half / 2;
    E = S(step);
    D = S(T(0));
    for (int k = 1; k <= n; ++k) {
      D = T(n * n) * E;
      E = T(2 * k - 1) * q * (k == 1 ? S(half) : E);
    }
  }
};

// phi(z) = sign z, E = (2/pi) asin c, whose c is 0 at q = 0. D is infinite: 0, as of Rectified.
template <class T>
struct Sign {
  explicit NTK_HD Sign(const double*) {}
  template <class S>
  NTK_HD void side(S q, S* f) const {
    f[0] = inverse_or_zero(sqrt(q));
    f[1] = 0;
  }
  template <class V>
  NTK_HD void pair(V K, V r0, V, V c0, V, V& E, V& D) const {
    E = T(2 / kPi) * arcsin(K * r0 * c0);
    D = V{};
  }
  template <class S>
  NTK_HD void diag(S q, S& E, S& D) const {
    E = q > 0 ? T(1) : T(0);
    D = 0;
  }
};

// E = K^odd P(x) of x = K^2, where P is a polynomial whose coefficients the variances give, and
// D = dE/dK: p and slope are P and P' at x.
template <class V>
NTK_HD void odd_or_even(bool odd, V K, V x, V p, V slope, V& E, V& D) {
  E = odd ? K * p : p;
  D = odd ? p + (x + x) * slope : (K + K) * slope;
}

// phi = a He_n of variance s: z^n (s = 0), the Hermite polynomial (s = 1):
// E = a^2 n! sum_i w_i [(q - s)(q' - s)]^i K^{n-2i}, w_i = n!/(4^i i!^2 (n - 2i)!); D = dE/dK.
template <class T>
struct Hermite {
  double s;
  int n;
  T w[kMostDegree / 2 + 1];  // with a^2 n!; 0 beyond n/2
  explicit NTK_HD Hermite(const double* p) : s(p[1]), n(degree(p[0])) {
    double each = p[2];
    for (int i = 0; i <= kMostDegree / 2; ++i) {
      w[i] = T(each);
      each *= double((n - 2 * i) * (n - 2 * i - 1)) / (4 * (i + 1) * (i + 1));
    }
  }
  template <class S>
  NTK_HD void side(S q, S* f) const {
    f[0] = q - s;
    f[1] = 0;
  }
  template <class V>
  NTK_HD void pair(V K, V r0, V, V c0, V, V& E, V& D) const {
    const V x = K * K, m = r0 * c0;
    V p = V{} + w[0], slope = V{}, power = V{} + T(1);
    for (int i = 1; i <= n / 2; ++i) {
      slope = slope * x + p;
      power = power * m;
      p = p * x + w[i] * power;
    }
    odd_or_even(n % 2 == 1, K, x, p, slope, E, D);
  }
  template <class S>
  NTK_HD void diag(S q, S& E, S& D) const {
    smooth_diag(*this, q, E, D);
  }
};

// phi(z) = sum_{i<4} p_i z^{2i + odd}: E = sum_l K^l s_l(q) s_l(q') over l = 2j + odd, with
// s_l(q) = sum_i p_{j+i} (l + 2i)!/(2^i i! sqrt(l!)) q^i; D = dE/dK. An even and an odd polynomial of
// the same z are uncorrelated, and so are their derivatives.
template <class T, int odd>
struct HalfPolynomial {
  T a[4][4];  // of q^i in s_l: a[j][i]
  explicit NTK_HD HalfPolynomial(const double* p) {
    for (int j = 0; j < 4; ++j) {
      const int l = 2 * j + odd;
      double factor = 1;  // (l + 2i)!/(2^i i! sqrt(l!))
      for (int k = 2; k <= l; ++k) factor *= ::sqrt(double(k));
      for (int i = 0; i < 4 - j; ++i) {
        a[j][i] = T(p[j + i] * factor);
        factor *= double((l + 2 * i + 1) * (l + 2 * i + 2)) / (2 * (i + 1));
      }
    }
  }
  template <class S>
  NTK_HD void side(S q, S* f) const {
    f[0] = q;
    f[1] = 0;
  }
  template <class V>
  NTK_HD V s(int j, V q) const {
    V sum = V{} + a[j][3 - j];
    for (int i = 2 - j; i >= 0; --i) sum = sum * q + a[j][i];
    return sum;
  }
  template <class V>
  NTK_HD void pair(V K, V r0, V, V c0, V, V& E, V& D) const {
    const V x = K * K;
    V p = s(3, r0) * s(3, c0), slope = V{};
    for (int j = 2; j >= 0; --j) {
      slope = slope * x + p;
      p = p * x + s(j, r0) * s(j, c0);
    }
    odd_or_even(odd, K, x, p, slope, E, D);
  }
  template <class S>
  NTK_HD void diag(S q, S& E, S& D) const {
    smooth_diag(*this, q, E, D);
  }
};
template <class T>
using EvenPolynomial = HalfPolynomial<T, 0>;
template <class T>
using OddPolynomial = HalfPolynomial<T, 1>;

// E = sqrt(qq') e^{g (c + h)}, D = g e^{g (c + h)}: a kernel, not of a scalar function
// (Shankar et al. 2020).
template <class T>
struct ExpNormalized {
  T g, h;
  explicit NTK_HD ExpNormalized(const double* p) : g(T(p[0])), h(T(p[1])) {}
  template <class S>
  NTK_HD void side(S q, S* f) const {
    f[1] = sqrt(q);
    f[0] = inverse_or_zero(f[1]);
  }
  template <class V>
  NTK_HD void pair(V K, V r0, V r1, V c0, V c1, V& E, V& D) const {
    const V e = exp(g * (K * r0 * c0 + h));
    E = r1 * c1 * e;
    D = g * e;
  }
  template <class S>
  NTK_HD void diag(S q, S& E, S& D) const {
    const S e = exp(S(g * ((q > 0 ? T(1) : T(0)) + h)));
    E = q * e;
    D = g * e;
  }
};

// phi(z) = e^{-z^2} sin z, u = 2K f f', f = 1/sqrt(1 + 2q), v = 1 - u^2, w = f f'/sqrt v:
// E = (w/2) (e^+ - e^-), e^+- = exp{[(f^2 + f'^2)/2 +- u f f']/(2v) - 1/2},
// D = (w/2) {w^2 (1 + 2 u^2/v) (e^+ + e^-) + (2 u f f'/v) [1 + (f^2 + f'^2)/(2v)] (e^+ - e^-)}.
// For small z = u f f'/v the difference is e^+ (1 - e^{-z}), which does not cancel.
template <class T>
struct Gabor {
  explicit NTK_HD Gabor(const double*) {}
  template <class S>
  NTK_HD void side(S q, S* f) const {
    f[0] = 1 / sqrt(1 + 2 * q);
    f[1] = 0;
  }
  template <class V>
  NTK_HD void pair(V K, V r0, V, V c0, V, V& E, V& D) const {
    const V ff = r0 * c0, u = T(2) * K * ff, v = rest_of_square(u, ff), inverse = T(1) / v;
    const V w = ff * sqrt(inverse), z = u * ff * inverse;
    const V m = T(0.5) * (r0 * r0 + c0 * c0) * inverse;
    const V near = decay(T(0.5) * (m + z - T(1))), far = decay(T(0.5) * (m - z - T(1)));
    const V rise = select(abs(z) < V{} + T(0.5), -near * expm1_series(-z), near - far);
    E = T(0.5) * w * rise;
    D = T(0.5) * w *
        (w * w * (T(1) + T(2) * u * u * inverse) * (near + far) + T(2) * z * (T(1) + m) * rise);
  }
  // w^2 = 1/(1 + 4q), z = 2q w^2, m = (1 + 2q) w^2
  template <class S>
  NTK_HD void diag(S q, S& E, S& D) const {
    const S w2 = 1 / (1 + 4 * q), w = sqrt(w2), z = 2 * q * w2;
    const S rise = -expm1_series(-z);
    E = T(0.5) * w * rise;
    D = T(0.5) * w *
        (w2 * (T(1) + T(8) * q * q * w2) * (T(2) - rise) +
         T(2) * z * (T(1) + (1 + 2 * q) * w2) * rise);
  }
};

// The registry: name in programs, struct.
#define NTK_FOR_EACH_DUAL(X) \
  X(abrelu, ABRelu)          \
  X(erf, Erf)                \
  X(gelu, Gelu)              \
  X(sin, Sin)                \
  X(exp, Exp)                \
  X(gaussian, Gaussian)      \
  X(rectified, Rectified)    \
  X(sign, Sign)              \
  X(hermite, Hermite)        \
  X(even, EvenPolynomial)    \
  X(odd, OddPolynomial)      \
  X(expnorm, ExpNormalized)  \
  X(gabor, Gabor)

}  // namespace ntk
