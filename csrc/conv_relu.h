// A 3x3 convolution in the NTK parameterization and the ReLU after it, from the window sums S_K, S_T:
//   K' = a/9 S_K + b,  T' = a/9 (S_T + S_K) + b,  K <- sqrt(qq')/2 kappa1(c),  T <- kappa0(c)/2 T',  c = K'/sqrt(qq').
// With s = sqrt(1 - c^2): kappa1 = c kappa0 + s/pi, so K <- kappa0/2 K' + sqrt(qq')/(2 pi) s. As a function of c alone
// this has derivative 0: the rounding of c does not reach K. kappa0 = 1 - s B(c) (dual.h).
// The hot arithmetic of convolutional networks, for CPU and GPU.
#pragma once

#include "plane_program.h"

namespace ntk {

template <class T>
struct ConvRelu {
  using B = typename Coefficients<T>::B;
  T scale, bias;      // a/9, b
  T half;             // kappa0's 1/2, times a/9 where K' and T' do not hold it yet
  T kappa0[B::size];  // B(c) times half

  ConvRelu() = default;
  ConvRelu(const PlaneOp& conv, bool with_bias)
      : scale(T(conv.p[0] / 9)), bias(T(conv.p[1])), half(with_bias ? T(0.5) : T(0.5) * scale) {
    for (int k = 0; k < B::size; ++k) kappa0[k] = half * B::at(k);
  }
};

constexpr double kReluRoot = 0.5 / kPi;  // the root's factor: sqrt(qq')/(2 pi)

// sqrt(1 - c^2), where rounding may leave less than 0 below the root. The GPU cuts it off for free, which its compiler
// does not see; elsewhere the root of the absolute value does.
#if defined(__CUDA_ARCH__)
NTK_HD float sine(float c) {
  float z;
  asm("fma.rn.ftz.sat.f32 %0, %1, %2, 0f3F800000;" : "=f"(z) : "f"(-c), "f"(c));
  return sqrt(z);
}
NTK_HD double sine(double c) { return sqrt(max(1 - c * c, 0.0)); }
#else
template <class V>
NTK_HD V sine(const V& c) {
  using T = typename Scalar<V>::type;
  return sqrt(abs(T(1) - c * c));
}
#endif

// S_K becomes K; returns what T' (without bias S_K + S_T) is to be multiplied with. inverse: 1/sqrt(qq'), times a/9
// without bias; root: sqrt(qq')/(2 pi). kPositive: K' >= 0 is known.
template <class T, bool kPositive, bool kBias, class V>
NTK_HD V conv_relu(const ConvRelu<T>& s, const V& inverse, const V& root, V& k) {
  if (kBias) k = s.scale * k + s.bias;
  const V c = k * inverse, x = kPositive ? c : abs(c), r = sine(c);
  V B = x * s.kappa0[ConvRelu<T>::B::size - 1] + s.kappa0[ConvRelu<T>::B::size - 2];
  for (int i = ConvRelu<T>::B::size - 3; i >= 0; --i) B = B * x + s.kappa0[i];
  const V u = r * B, half_kappa0 = kPositive ? s.half - u : if_negative(c, u, s.half - u);
  k = half_kappa0 * k + root * r;
  return half_kappa0;
}

}  // namespace ntk
