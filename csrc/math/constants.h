// The constants of ops, by what they mean to each.
#pragma once

#include "portable.h"

namespace ntk {

// K <- a K + b, T <- a T + (e K + f): dense layers, convolutions of window sums, and what a program
// puts out.
template <class T>
struct Affine {
  T a, b, e, f;

  template <class U>
  NTK_HD Affine<U> as() const {
    return {U(a), U(b), U(e), U(f)};
  }
  template <class V>
  NTK_HD V nngp(const V& K) const {
    return a * K + b;
  }
  template <class V>
  NTK_HD V ntk(const V& K, const V& t) const {
    return a * t + (e * K + f);
  }
  template <bool kNtk, class V>
  NTK_HD void apply(V& K, V& t) const {
    if (kNtk) t = ntk(K, t);
    K = nngp(K);
  }
};

// phi(z) = below z (z < 0), above z (z > 0).
struct ReluSlopes {
  double below, above;
};

struct Constants {
  double p[4];          // as they are to a pointwise op
  const double* table;  // of a series (series.h), on the host only
  int even, odd;        // its terms
  int number;           // of a pair of its features
  int pairs = 1;        // of features of all its ops

  NTK_HD Affine<double> affine() const { return {p[0], p[1], p[2], p[3]}; }
  NTK_HD double scale() const { return p[0]; }             // of a pool or a read-out of images
  NTK_HD ReluSlopes relu() const { return {p[0], p[1]}; }  // of an abrelu
};

}  // namespace ntk
