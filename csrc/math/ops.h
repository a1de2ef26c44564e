// What ops do to the covariance K and the tangent kernel T of a pair of points, and of one point
// with itself (x' = x): every formula once. What runs programs, on the CPU and on the GPU, for
// vectors and for planes, is loops only.
//
// An op is affine in K and T, or pointwise: K <- E, T <- D T, where E and D depend on K and on two
// features of each point; or it joins two slots.
// To add a pointwise one: its struct, and one line in NTK_FOR_EACH_POINTWISE_LAYER; an activation's
// go to dual.h.
#pragma once

#include <type_traits>

#include "dual.h"
#include "kinks.h"
#include "series.h"

namespace ntk {

// Layer normalisation: K, T <- K, T / sqrt((q + eps)(q' + eps)). A struct like those of dual.h.
// Of images, q may be the mean over rows or columns of pixels or both: who knows them hands it to
// side().
template <class T>
struct Normalize {
  T eps;
  bool over_h, over_w;
  explicit NTK_HD Normalize(const double* p) : eps(T(p[0])), over_h(p[1] != 0), over_w(p[2] != 0) {}
  template <class S>
  NTK_HD void side(S q, S* f) const {
    f[0] = 1 / sqrt(q + double(eps));
    f[1] = 0;
  }
  template <class V>
  NTK_HD void pair(V K, V r0, V, V c0, V, V& E, V& D) const {
    D = r0 * c0;
    E = D * K;
  }
  template <class S>
  NTK_HD void diag(S q, S& E, S& D) const {
    smooth_diag(*this, q, E, D);
  }
};

// K, T <- a K, a T, a > 0: the share of a signal in a concatenation.
template <class T>
struct Scale {
  T a;
  explicit NTK_HD Scale(const double* p) : a(T(p[0])) {}
  template <class S>
  NTK_HD void side(S, S* f) const {
    f[0] = f[1] = 0;
  }
  template <class V>
  NTK_HD void pair(V K, V, V, V, V, V& E, V& D) const {
    E = a * K;
    D = V{} + a;
  }
  template <class S>
  NTK_HD void diag(S q, S& E, S& D) const {
    smooth_diag(*this, q, E, D);
  }
};

// Dropout that keeps features with probability a, and divides them by it: masks of different
// samples, and of different pixels, are independent, so that only q, T <- q/a, T/a of a point with
// itself change.
template <class T>
struct Dropout {
  T a;
  explicit NTK_HD Dropout(const double* p) : a(T(p[0])) {}
  template <class S>
  NTK_HD void side(S, S* f) const {
    f[0] = f[1] = 0;
  }
  template <class V>
  NTK_HD void pair(V K, V, V, V, V, V& E, V& D) const {
    E = K;
    D = V{} + T(1);
  }
  template <class S>
  NTK_HD void diag(S q, S& E, S& D) const {
    E = q / S(a);
    D = S(1 / a);
  }
};

// K, T <- w w' K, w w' T, w the weight of a position of its own sample: who knows them hands them in as
// features (see FullOp).
template <class T>
struct Weigh {
  explicit NTK_HD Weigh(const double*) {}
  template <class S>
  NTK_HD void side(S, S* f) const {
    f[0] = 1;
    f[1] = 0;
  }
  template <class V>
  NTK_HD void pair(V K, V r0, V, V c0, V, V& E, V& D) const {
    D = r0 * c0;
    E = D * K;
  }
  template <class S>
  NTK_HD void diag(S q, S& E, S& D) const {
    smooth_diag(*this, q, E, D);
  }
};

// The registry: name in programs, struct. Those of tables are made by bindings/tabulated.h; a series
// is several ops (series.h).
#define NTK_FOR_EACH_POINTWISE_LAYER(X) \
  X(normalize, Normalize)               \
  X(scale, Scale)                       \
  X(dropout, Dropout)                   \
  X(weigh, Weigh)
#define NTK_FOR_EACH_SERIES(X) \
  X(series_terms, SeriesTerms) \
  X(series, Series)            \
  X(kinks, Kinks)
#define NTK_FOR_EACH_POINTWISE(X) \
  NTK_FOR_EACH_DUAL(X) NTK_FOR_EACH_POINTWISE_LAYER(X) NTK_FOR_EACH_SERIES(X)

enum class Pointwise : int {
#define NTK_ENUM(name, Phi) name,
  NTK_FOR_EACH_POINTWISE(NTK_ENUM)
#undef NTK_ENUM
};

// Phi of an op's constants: all of them, or the p that most need.
template <class Phi>
NTK_HD Phi made_of(const Constants& constants) {
  if constexpr (std::is_constructible_v<Phi, const Constants&>)
    return Phi(constants);
  else
    return Phi(constants.p);
}

// Calls f(Phi<T>) for the op of this name.
template <class T, class F>
NTK_HD void visit_pointwise(Pointwise name, const Constants& constants, F&& f) {
  switch (name) {
#define NTK_CASE(name, Phi)        \
  case Pointwise::name:            \
    f(made_of<Phi<T>>(constants)); \
    break;
    NTK_FOR_EACH_POINTWISE(NTK_CASE)
#undef NTK_CASE
  }
}

template <class Phi>
constexpr bool is_series = false;
template <class T>
constexpr bool is_series<Series<T>> = true;

// E and D of a pair: row(k) and col(k) are the features of its row and its column; of a series so
// many terms.
template <class Phi, class V, class Row, class Col>
NTK_HD void pair_of(const Phi& phi, V K, const Row& row, const Col& col, int terms, V& E, V& D) {
  if constexpr (is_series<Phi>)
    phi.pair(K, row, col, terms, E, D);
  else
    phi.pair(K, row(0), row(1), col(0), col(1), E, D);
}

// The terms that this pair needs.
template <class Phi, class Row, class Col>
NTK_HD int terms_of(const Phi& phi, const Row& row, const Col& col) {
  if constexpr (is_series<Phi>)
    return phi.terms_of(max(row(phi.needed()), col(phi.needed())));
  else
    return 0;
}

// Does the op change K and T of a pair, or hold features only?
NTK_HD bool acts(Pointwise name) { return name != Pointwise::series_terms; }

// Is the first feature the inverse of a root of a variance?
inline bool holds_inverse(Pointwise name, const Constants& constants) {
  const bool angle = name == Pointwise::abrelu || name == Pointwise::rectified ||
                     name == Pointwise::sign || name == Pointwise::expnorm;
  const bool first_of_series = name == Pointwise::series_terms && constants.number == 0;
  return angle || first_of_series || name == Pointwise::normalize;
}

// Does K keep its sign?
inline bool keeps_sign(Pointwise name) {
  return name == Pointwise::normalize || name == Pointwise::scale || name == Pointwise::dropout ||
         name == Pointwise::weigh;
}

// Does a sample differ from one equal to it?
inline bool draws_anew(Pointwise name) { return name == Pointwise::dropout; }

// What an op on two slots makes of the first one's K and T: a copy of the other's, their sums, or
// those of the product of independent signals, K <- K K', T <- T K' + K T'.
template <class Kind, class V>
NTK_HD void combine(Kind kind, V& K, V& t, const V& other_K, const V& other_t) {
  if (kind == Kind::multiply) {
    t = t * other_K + K * other_t;
    K = K * other_K;
  } else if (kind == Kind::add) {
    K = K + other_K;
    t = t + other_t;
  } else {
    K = other_K;
    t = other_t;
  }
}
template <class Kind>
NTK_HD bool of_two_slots(Kind kind) {
  return kind == Kind::copy || kind == Kind::add || kind == Kind::multiply;
}

// A pointwise op on a point with itself: its features, K <- E, T <- D T.
template <class S>
struct WithItself {
  S f[2], E, D;
};
template <class S, class Phi>
NTK_HD WithItself<S> with_itself(const Phi& phi, S q) {
  WithItself<S> r{};
  phi.side(q, r.f);
  phi.diag(q, r.E, r.D);
  return r;
}
template <class S>
NTK_HD WithItself<S> with_itself(Pointwise name, const Constants& constants, S q) {
  WithItself<S> r{};
  visit_pointwise<double>(name, constants, [&](const auto& phi) { r = with_itself(phi, q); });
  return r;
}

}  // namespace ntk
