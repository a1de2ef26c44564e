// What lets one source serve g++, clang and nvcc: NTK_HD, and the scalar names that dual.h uses.
#pragma once

#include <cmath>
#include <cstdint>

#if defined(__CUDACC__)
#define NTK_HD __host__ __device__ __forceinline__
#else
// always_inline: no out-of-line copy of a wide build can reach the linker (tests/test_package.py
// looks).
#define NTK_HD inline __attribute__((always_inline))
#endif

namespace ntk {

// Scalar<V>::type is the element type of V: V itself here, the lane's type for the vectors of
// cpu/simd.h.
template <class V>
struct Scalar {
  using type = V;
};

NTK_HD float sqrt(float x) { return ::sqrtf(x); }
NTK_HD double sqrt(double x) { return ::sqrt(x); }
NTK_HD float reciprocal(float x) { return 1 / x; }
NTK_HD double reciprocal(double x) { return 1 / x; }
NTK_HD float exp(float x) { return ::expf(x); }
NTK_HD double exp(double x) { return ::exp(x); }
NTK_HD float abs(float x) { return ::fabsf(x); }
NTK_HD double abs(double x) { return ::fabs(x); }
NTK_HD float max(float a, float b) { return a > b ? a : b; }
NTK_HD double max(double a, double b) { return a > b ? a : b; }
NTK_HD float min(float a, float b) { return a < b ? a : b; }
NTK_HD double min(double a, double b) { return a < b ? a : b; }
NTK_HD float if_negative(float x, float a, float b) { return x < 0 ? a : b; }
NTK_HD double if_negative(double x, double a, double b) { return x < 0 ? a : b; }

// The largest of the lanes as a whole number, at most `limit`.
NTK_HD int highest(float x, int limit) { return x < limit ? int(x) : limit; }
NTK_HD int highest(double x, int limit) { return x < limit ? int(x) : limit; }

// mask ? a : b, lane by lane where they are vectors; classes of lanes have overloads of their own.
template <class Mask, class V>
NTK_HD V select(Mask mask, V a, V b) {
  return mask ? a : b;
}

}  // namespace ntk
