// A 3x3 convolution in the NTK parameterization and the ReLU after it, from the window sums S_K, S_T:
//   K' = a/9 S_K + b,  T' = a/9 (S_T + S_K) + b,  K <- sqrt(qq')/2 kappa1(c),  T <- kappa0(c)/2 T'.
// The hot arithmetic of convolutional networks, for CPU and GPU.
#pragma once

#include "plane_program.h"

namespace ntk {

template <class T>
struct ConvRelu {
  T scale, bias;                       // a/9, b
  T half;                              // kappa0's 1/2, times a/9 where T' does not hold it yet
  T kappa0[Coefficients<T>::A::size];  // A(y) times half

  ConvRelu() = default;
  ConvRelu(const PlaneOp& conv, bool with_bias)
      : scale(T(conv.p[0] / 9)), bias(T(conv.p[1])), half(with_bias ? T(0.5) : T(0.5) * scale) {
    for (int k = 0; k < Coefficients<T>::A::size; ++k) kappa0[k] = half * Coefficients<T>::A::at(k);
  }
};

// y = 1 - |c| may be rounded to less than 0. The GPU cuts it off for free; elsewhere the root of |y| does.
#if defined(__CUDA_ARCH__)
NTK_HD float cut(float y) { return __saturatef(y); }
NTK_HD double cut(double y) { return max(y, 0.0); }
template <class V>
NTK_HD V root_of_cut(V y) {
  return sqrt(y);
}
#else
template <class V>
NTK_HD V cut(V y) {
  return y;
}
template <class V>
NTK_HD V root_of_cut(V y) {
  return sqrt(abs(y));
}
#endif

// inverse: 1/sqrt(qq'), times a/9 without bias; root: sqrt(qq')/2. kPositive: K' >= 0 is known.
template <class T, bool kNtk, bool kPositive, bool kBias, class V>
NTK_HD void conv_relu(const ConvRelu<T>& s, const V& inverse, const V& root, V& k, V& t) {
  if (kNtk) t = kBias ? s.scale * (k + t) + s.bias : k + t;
  if (kBias) k = s.scale * k + s.bias;
  const V corr = k * inverse, y = cut(T(1) - (kPositive ? corr : abs(corr))), r = root_of_cut(y);
  const V near = kPositive ? T(1) - y : max(corr, T(0));
  k = root * (y * r * Fit<T>::C(y) + near);
  if (!kNtk) return;
  V A = y * s.kappa0[Coefficients<T>::A::size - 1] + s.kappa0[Coefficients<T>::A::size - 2];
  for (int i = Coefficients<T>::A::size - 3; i >= 0; --i) A = A * y + s.kappa0[i];
  const V u = r * A;
  t = (kPositive ? s.half - u : if_negative(corr, u, s.half - u)) * t;
}

}  // namespace ntk
