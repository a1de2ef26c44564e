// ReLU networks in registers. Of a chain dense, (leaky) ReLU, dense, … a pair's state is kept as
//   y = 1 - K / sqrt(q q'), the defect of the correlation, and
//   t = T / sqrt(q q') + eps (1 - y), eps of the dense to come,
// because 1 - kappa1(1 - y) = y - y sqrt(y) C(y) has no cancellation: near-duplicates lose nothing,
// at any depth, and a network without bias needs no variances at all:
//   y <- y - y^1.5 C(y),  t <- kappa0 t + (1 - y).
#pragma once

#include "ops.h"

namespace ntk {

// An Affine in normalised form, with alpha^2 = a q/q_new and beta^2 = b/q_new of each point:
//   y <- alpha alpha' y + [(alpha - alpha')^2 + (beta - beta')^2]/2,
//   T <- alpha alpha' t + phi beta beta'.
template <class T>
struct ChainAffine {
  bool bias;  // without bias alpha = 1, beta = 0: nothing to do
  T phi;
  const T *row_alpha, *col_alpha, *row_beta, *col_beta;
};

// alpha and beta of one point, whose variance before the op is q.
inline void chain_features(const Affine<double>& map, double q, double* f) {
  const double q_new = map.nngp(q);
  const auto root_of_share = [&](double part) { return q_new > 0 ? std::sqrt(part / q_new) : 0; };
  f[0] = root_of_share(map.a * q);
  f[1] = root_of_share(map.b);
}

// phi with E = scale [gamma kappa1 + (1 - gamma) c] sqrt(q q'), gamma = g/scale, scale = g + h.
template <class T>
struct ChainRelu {
  bool pure;      // gamma = 1 and eps = 1
  bool positive;  // c >= 0 is known
  T gamma, scale, eps;
  const T *row_root, *col_root;
};

// What is put out of the state after the ReLU; e counts from what t already holds.
template <class T>
struct ChainEmit {
  Affine<T> map;
  T *nngp, *ntk;
  int output;
};

template <class T>
struct ChainLayer {
  ChainAffine<T> affine;
  ChainRelu<T> relu;
  const ChainEmit<T>* emits;
  int emit_count;
  int run;  // so many layers from here on are plain ReLU steps without bias or read-out
};

template <class T>
struct Chain {
  T eps;  // of the first dense
  int depth;
  const ChainLayer<T>* layers;
};

// Pairs nearer than this are compared by difference: 1 - u.u' from a rounded product would carry
// sqrt(rounding) on.
constexpr double kNear = 1.0 / 128;

// The dense layer on normalised y and t, from both points' alpha and beta.
template <class T, bool kNtk, class R, class P>
NTK_HD void affine_step(T phi, const R& row_alpha, const R& row_beta, const P& alpha, const P& beta,
                        P& y, P& t) {
  const P da = alpha - row_alpha, db = beta - row_beta, aa = row_alpha * alpha;
  if (kNtk) t = aa * t + phi * row_beta * beta;
  y = aa * y + T(0.5) * (da * da + db * db);
}

template <class T, bool kNtk, class P>
NTK_HD void plain_relu_step(P& y, P& t) {
  const P r = sqrt(y), k0 = T(1) - r * Fit<T>::A(y);
  y = y - y * r * Fit<T>::C(y);
  if (kNtk) t = k0 * t + (T(1) - y);
}

template <class T, bool kNtk, bool kPure, class P>
NTK_HD void relu_step(const ChainRelu<T>& s, P& y, P& t) {
  const P near = max(min(y, T(2) - y), T(0)), r = sqrt(near);  // near = 1 - |c|
  const P u = r * Fit<T>::A(near), k0 = if_negative(T(1) - y, u, T(1) - u);
  const P defect = min(y, T(1)) - near * r * Fit<T>::C(near);
  y = kPure ? defect : s.gamma * defect + (T(1) - s.gamma) * y;
  if (kNtk)
    t = kPure ? k0 * t + (T(1) - y) : (s.gamma * k0 + (T(1) - s.gamma)) * t + s.eps * (T(1) - y);
}

// The ReLU of any layer.
template <class T, bool kNtk, class P>
NTK_HD void any_relu_step(const ChainRelu<T>& s, P& y, P& t) {
  if (s.pure && s.positive)
    plain_relu_step<T, kNtk>(y, t);
  else if (s.pure)
    relu_step<T, kNtk, true>(s, y, t);
  else
    relu_step<T, kNtk, false>(s, y, t);
}

// |u - u'|^2 / 2 of two unit vectors: the defect of their correlation.
template <class T>
NTK_HD T half_squared_distance(const T* u, const T* v, std::int64_t width) {
  T sum = 0;
  for (std::int64_t k = 0; k < width; ++k) sum += (u[k] - v[k]) * (u[k] - v[k]);
  return sum / 2;
}

}  // namespace ntk
