// ReLU networks in registers. For a chain dense, (leaky) ReLU, dense, … the state of a pair is kept as
//   y = 1 - K / sqrt(q q'), the defect of the correlation, and t = T / sqrt(q q') + eps (1 - y), eps of the dense to come,
// because 1 - kappa1(1 - y) = y - y sqrt(y) C(y) has no cancellation: near-duplicates lose nothing, at any depth,
// and a network without bias needs no variances at all: y <- y - y^1.5 C(y),  t <- kappa0 t + (1 - y).
#pragma once

#include "backend.h"

namespace ntk {

// K <- a K + b, T <- a T + e K + f in normalised form, with alpha^2 = a q/q_new and beta^2 = b/q_new of each point:
// y <- alpha alpha' y + [(alpha - alpha')^2 + (beta - beta')^2]/2,  T <- alpha alpha' t + phi beta beta'.
template <class T>
struct ChainAffine {
  bool bias;  // without bias alpha = 1, beta = 0: nothing to do
  T phi;
  const T *row_alpha, *col_alpha, *row_beta, *col_beta;
};

// phi with E = scale [gamma kappa1 + (1 - gamma) c] sqrt(q q'), gamma = g/scale, scale = g + h.
template <class T>
struct ChainRelu {
  bool pure;      // gamma = 1 and eps = 1
  bool positive;  // c >= 0 is known
  T gamma, scale, eps;
  const T *row_root, *col_root;
};

// a K + b and a T + e K + f of the state after the ReLU; e counts from what t already holds.
template <class T>
struct ChainEmit {
  T a, b, e, f;
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

// Pairs nearer than this are compared by difference: 1 - u.u' from a rounded product would carry sqrt(rounding) on.
constexpr double kNear = 1.0 / 128;

// The dense layer on normalised y and t, from both points' alpha and beta.
template <class T, bool kNtk, class R, class P>
NTK_HD void affine_step(T phi, const R& row_alpha, const R& row_beta, const P& alpha, const P& beta, P& y, P& t) {
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
  if (kNtk) t = kPure ? k0 * t + (T(1) - y) : (s.gamma * k0 + (T(1) - s.gamma)) * t + s.eps * (T(1) - y);
}

namespace {

// e/a of the dense layer that follows op number k; 1 at the end.
inline double next_eps(const Program& program, int k) {
  for (; k < program.size; ++k)
    if (program.ops[k].kind == OpKind::affine) return program.ops[k].p[2] / program.ops[k].p[0];
  return 1;
}

// The chain of a program for which is_relu_chain() holds, in memory for `size` layers and emits.
template <class T>
Chain<T> make_chain(const Tile<T>& tile, ChainLayer<T>* layers, ChainEmit<T>* emits) {
  const Program& program = tile.program;
  const PointsView<T>&r = tile.row_points, &c = tile.col_points;
  ChainLayer<T>* layer = layers - 1;
  bool positive = false;
  for (int k = 0; k < program.size; ++k) {
    const Op& op = program.ops[k];
    const double* p = op.p;
    if (op.kind == OpKind::affine) {
      (++layer)->affine = {p[1] > 0 || p[3] > 0, T(p[1] > 0 ? p[3] / p[1] : 0),
                           r.feature(k, 0),      c.feature(k, 0),
                           r.feature(k, 1),      c.feature(k, 1)};
    } else if (op.kind == OpKind::dual) {
      const double g = (p[0] - p[1]) * (p[0] - p[1]) / 2, scale = g + p[0] * p[1], eps = next_eps(program, k);
      const bool relu = p[0] * p[1] == 0;  // gamma = 1: E >= 0, so c >= 0 from here on
      layer->relu = {relu && eps == 1, positive, T(g / scale), T(scale), T(eps), r.feature(k, 1), c.feature(k, 1)};
      layer->emits = emits;
      layer->emit_count = 0;
      positive = relu;
    } else {
      *emits++ = {
          T(p[0]), T(p[1]), T(p[2] - p[0] * next_eps(program, k)), T(p[3]), tile.nngp[op.other], tile.ntk[op.other],
          op.other};
      ++layer->emit_count;
    }
  }
  const int depth = int(layer - layers) + 1;
  layers[depth - 1].run = 0;  // the last layer is read out
  for (int l = depth - 2; l >= 0; --l) {
    const ChainLayer<T>& at = layers[l];
    const bool plain = at.relu.pure && at.relu.positive && !at.affine.bias && at.emit_count == 0;
    layers[l].run = plain ? layers[l + 1].run + 1 : 0;
  }
  return {T(next_eps(program, 0)), depth, layers};
}

}  // namespace
}  // namespace ntk
