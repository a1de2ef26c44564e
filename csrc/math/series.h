// The dual of any activation, by the Hermite coefficients of its derivative (Mehler's formula):
//   D = sum over n of d_n d_n' c^n,  E = a_0 a_0' + K sum over n of d_n d_n' c^n / (n + 1),
// a_0 = E[phi(z)], d_n = E[phi'(z) h_n(z / sqrt q)], c = K / sqrt(qq'), h_n the normalised Hermite
// polynomials. They are functions of a point's variance only, tabulated by Python
// (specs/series.py). Kinks at 0 have closed forms: of
//   u(z) = k0 sgn z + k1 |z| + k2 z |z| + k3 |z|^3
// the sum holds what is left, d_n d_n' - u_n u_n' = r_n m_n' + m_n r_n', r = d - u, m = u + r/2.
#pragma once

#include "constants.h"
#include "dual.h"
#include "pack.h"

namespace ntk {

// What a table holds of a variance q: functions of q, their values at q = 0, and octave by octave
// of p = q / most their Chebyshev coefficients in 2 p / 2^e - 3, 2^e <= p < 2^(e + 1).
//   [kHeader: octaves, size, functions, even, odd, most], [functions],
//   [octaves][functions][size], the last octave that below p = 1
// Below the first octave they go to 0 linearly in q; for q >= most they are NaN.
struct SeriesTable {
  static constexpr int kHeader = 6;
  const double* data;

  NTK_HD int octaves() const { return int(data[0]); }
  NTK_HD int size() const { return int(data[1]); }
  NTK_HD int functions() const { return int(data[2]); }
  NTK_HD int even() const { return int(data[3]); }  // terms with even n
  NTK_HD int odd() const { return int(data[4]); }
  NTK_HD double most() const { return data[5]; }

  template <class S>
  NTK_HD S at(int function, S q) const {
    const double zero = data[kHeader + function], least = ::ldexp(1.0, -octaves());
    const S p = q * (1 / most());
    if (!(value_of(p) > 0)) return S(zero);
    if (value_of(p) < least) return zero + p * ((chebyshev(0, function, -1.0) - zero) / least);
    int exponent;
    ::frexp(value_of(p), &exponent);
    if (exponent > 0) return S(NAN);
    return chebyshev(octaves() - 1 + exponent, function, p * ::ldexp(1.0, 2 - exponent) - 3.0);
  }

 private:
  static NTK_HD double value_of(double q) { return q; }
  template <class S>
  static NTK_HD double value_of(const S& q) {
    return q.v;
  }
  // Clenshaw's recurrence.
  template <class S>
  NTK_HD S chebyshev(int octave, int function, S x) const {
    const double* c =
        data + kHeader + functions() + (std::int64_t(octave) * functions() + function) * size();
    S b1 = S(0.0), b2 = S(0.0);
    for (int k = size() - 1; k > 0; --k) {
      const S b = 2.0 * x * b1 - b2 + c[k];
      b2 = b1;
      b1 = b;
    }
    return x * b1 - b2 + c[0];
  }
};

// The features of a point are pairs, the first 1/sqrt q and sqrt q, then functions 2, 3, … of the
// table: a_0, how many terms of each parity the variance needs, and of every term, even ones first,
// d_n / sqrt(n + 1), or r_n and m_n over it. A pair of points takes the terms of the larger need:
// by Cauchy and Schwarz what it leaves out is then small. Each pair of features is that of an op of
// its own, the last of which acts: its feature number k is number k - 2 (pairs - 1) to pair().
template <class T>
struct SeriesTerms {
  SeriesTable table;
  int number;  // of the pair
  explicit NTK_HD SeriesTerms(const Constants& c) : table{c.table}, number(c.number) {}

  template <class S>
  NTK_HD void side(S q, S* f) const {
    if (number == 0) {
      f[1] = sqrt(q);
      f[0] = inverse_or_zero(f[1]);
      return;
    }
    f[0] = table.at(2 * number, q);
    f[1] = table.at(2 * number + 1, q);
  }
  template <class S>
  NTK_HD void diag(S q, S& E, S& D) const {
    E = q;
    D = S(1.0);
  }
  template <class V>
  NTK_HD void pair(V K, V, V, V, V, V& E, V& D) const {
    E = K;
    D = V{} + T(1);
  }
};

template <class V, int n>
NTK_HD void kappa(const Pack<V, n>& c, Pack<V, n>& k0, Pack<V, n>& k1) {
  for (int i = 0; i < n; ++i) kappa(c.v[i], k0.v[i], k1.v[i]);
}

template <class T>
struct Series {
  T k0, k1, k2, k3;
  bool kinked;
  int even, odd, shift;
  SeriesTerms<T> features;

  explicit NTK_HD Series(const Constants& c)
      : k0(T(c.p[0])),
        k1(T(c.p[1])),
        k2(T(c.p[2])),
        k3(T(c.p[3])),
        kinked(c.p[0] != 0 || c.p[1] != 0 || c.p[2] != 0 || c.p[3] != 0),
        even(c.even),
        odd(c.odd),
        shift(2 * (c.pairs - 1)),
        features(c) {}

  template <class S>
  NTK_HD void side(S q, S* f) const {
    features.side(q, f);
  }
  template <class S>
  NTK_HD void diag(S q, S& E, S& D) const {
    E = features.table.at(0, q);
    D = features.table.at(1, q);
  }

  // The feature that says how many terms of each parity a point needs: a pair takes the larger.
  NTK_HD int needed() const { return 3 - shift; }
  template <class V>
  NTK_HD int terms_of(V need) const {
    return highest(need, even > odd ? even : odd);
  }

  template <class V, class Row, class Col>
  NTK_HD void pair(V K, const Row& row, const Col& col, int terms, V& E, V& D) const {
    const V c = K * row(-shift) * col(-shift), w = c * c;
    V S, dS, integral = V{};
    D = V{};
    if (even > 0) {
      sum(4 - shift, even < terms ? even : terms, w, row, col, S, dS);
      integral = S;
      D = S + T(2) * w * dS;
    }
    const int used = kinked ? 2 * even : even;
    if (odd > 0) {
      sum(4 - shift + used, odd < terms ? odd : terms, w, row, col, S, dS);
      integral = integral + c * S;
      D = D + T(2) * c * (S + w * dS);
    }
    E = row(2 - shift) * col(2 - shift) + K * integral;
    if (kinked) add_kinks(c, w, row(1 - shift), col(1 - shift), E, D);
  }

 private:
  // S = sum of products of features over powers of w, one at least, and its derivative.
  template <class V, class Row, class Col>
  NTK_HD void sum(int first, int count, V w, const Row& row, const Col& col, V& S, V& dS) const {
    dS = V{};
    S = term<V>(first, count - 1, row, col);
    for (int k = count - 2; k >= 0; --k) {
      dS = dS * w + S;
      S = S * w + term<V>(first, k, row, col);
    }
  }
  template <class V, class Row, class Col>
  NTK_HD V term(int first, int k, const Row& row, const Col& col) const {
    if (!kinked) return row(first + k) * col(first + k);
    const int at = first + 2 * k;
    return row(at) * col(at + 1) + row(at + 1) * col(at);
  }

  // E[u u'] and its integral over c, from alpha = (2/pi) asin c and sigma = (2/pi) sqrt(1 - c^2);
  // the latter's value at K = 0 is in a_0.
  template <class V>
  NTK_HD void add_kinks(V c, V w, V root, V other, V& E, V& D) const {
    V kappa0, kappa1;
    kappa(c, kappa0, kappa1);
    const V alpha = T(2) * kappa0 - T(1), beta = T(2) * kappa1 - c, sigma = beta - c * alpha,
            s2 = T(1) - w, cs = c * sigma;
    const V b02 = alpha + cs, b22 = T(3) * cs + (T(1) + T(2) * w) * alpha,
            b13 = T(3) * beta - sigma * s2,
            b33 = (T(4) + T(11) * w) * sigma + c * (T(9) + T(6) * w) * alpha;
    const V i00 = beta - T(2 / kPi), i02 = beta - T(1.0 / 3) * sigma * s2 - T(4 / (3 * kPi)),
            i22 = T(1.0 / 9) * b33 - T(8 / (9 * kPi)), i11 = T(0.25) * b22,
            i13 = alpha * (T(1.5) * w + T(0.375)) + cs * (T(1.875) - T(0.25) * s2),
            i33 =
                T(1.0 / 16) * ((T(55) + T(50) * w) * cs + (T(9) + w * (T(72) + T(24) * w)) * alpha);
    const V rr = root * other, both = root * root + other * other;
    D = D + (T(k0 * k0) * alpha + both * (T(k0 * k2) * b02 + T(k1 * k3) * rr * b13) +
             rr * (T(k1 * k1) * beta + rr * (T(k2 * k2) * b22 + T(k3 * k3) * rr * b33)));
    E = E + rr * (T(k0 * k0) * i00 + both * (T(k0 * k2) * i02 + T(k1 * k3) * rr * i13) +
                  rr * (T(k1 * k1) * i11 + rr * (T(k2 * k2) * i22 + T(k3 * k3) * rr * i33)));
  }
};

}  // namespace ntk
