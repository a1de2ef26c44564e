// The ReLU after a convolution, of the covariance K' and tangent kernel T' before it, with
// c = K'/sqrt(qq'):
//   K <- sqrt(qq')/2 kappa1(c),  T <- kappa0(c)/2 T'.
// With s = sqrt(1 - c^2): kappa0 = 1 - s B(c) (dual.h) and kappa1 = c kappa0 + s/pi, so one
// root serves both, and
//   K <- kappa0/2 K' + sqrt(qq')/2 s/pi,
// whose derivative by c alone is 0: the rounding of c does not reach K.
// The hot arithmetic of convolutional networks, for CPU and GPU.
#pragma once

#include <limits>

#include "dual.h"

namespace ntk {

// s, where rounding may leave less than 0 below the root. The GPU cuts it off for free, which its
// compiler does not see; elsewhere the root of the absolute value does.
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

// c = K'/root of root = sqrt(qq'), and 0 where both are 0, as of dark pixels, so that K stays 0
// there whatever W_std is. Where K' >= 0 is known the GPU cuts c off at 1 for free, and at 0 what
// is no number.
template <class T, bool kPositive, class V>
NTK_HD V correlation(const V& k, const V& root) {
#if defined(__CUDA_ARCH__)
  if constexpr (kPositive && sizeof(T) == 4) return __saturatef(k * reciprocal(root));
#endif
  return k * reciprocal(max(root, std::numeric_limits<T>::min()));
}

// whole kappa0(c), from a multiple of s and B's coefficients, coefficient(i), times whole over that
// multiple. kPositive: c >= 0 is known.
template <class T, bool kPositive, class V, class F>
NTK_HD V kappa0_times(T whole, const V& c, const V& s, const F& coefficient) {
  constexpr int size = Coefficients<T>::B::size;
  const V x = kPositive ? c : abs(c);
  V B = x * coefficient(size - 1) + coefficient(size - 2);
  for (int i = size - 3; i >= 0; --i) B = B * x + coefficient(i);
  const V u = s * B;
  return kPositive ? whole - u : if_negative(c, u, whole - u);
}

}  // namespace ntk
