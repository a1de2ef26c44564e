// Vectors of the widest registers of this translation unit's instruction set, with the names dual.h
// uses.
#pragma once

#include "../math/portable.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace ntk {

#if defined(__AVX512F__)
#define NTK_VECTOR_BYTES 64
#elif defined(__AVX2__)
#define NTK_VECTOR_BYTES 32
#else
#define NTK_VECTOR_BYTES 16
#endif

typedef float FloatV __attribute__((vector_size(NTK_VECTOR_BYTES)));
typedef double DoubleV __attribute__((vector_size(NTK_VECTOR_BYTES)));
typedef std::int32_t Int32V __attribute__((vector_size(NTK_VECTOR_BYTES)));
typedef std::int64_t Int64V __attribute__((vector_size(NTK_VECTOR_BYTES)));

template <>
struct Scalar<FloatV> {
  using type = float;
};
template <>
struct Scalar<DoubleV> {
  using type = double;
};

template <class T>
struct Vector;
template <>
struct Vector<float> {
  using type = FloatV;
  using integer = Int32V;
};
template <>
struct Vector<double> {
  using type = DoubleV;
  using integer = Int64V;
};

template <class T>
constexpr int kLanes = NTK_VECTOR_BYTES / sizeof(T);

template <class T>
NTK_HD typename Vector<T>::type load(const T* p) {
  typename Vector<T>::type v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}

template <class T, class V>
NTK_HD void store(T* p, V v) {
  __builtin_memcpy(p, &v, sizeof v);
}

template <class T>
NTK_HD typename Vector<T>::type splat(T x) {
  return x - typename Vector<T>::type{};  // folds to a broadcast, as x + 0 (for x = -0) does not
}

// GCC folds a < b ? a : b to one instruction only under -ffast-math: say it by intrinsic where
// there is one.
#if defined(__AVX512F__)
NTK_HD FloatV sqrt(FloatV x) { return (FloatV)_mm512_sqrt_ps((__m512)x); }
NTK_HD DoubleV sqrt(DoubleV x) { return (DoubleV)_mm512_sqrt_pd((__m512d)x); }
NTK_HD FloatV max(FloatV a, FloatV b) { return (FloatV)_mm512_max_ps((__m512)a, (__m512)b); }
NTK_HD DoubleV max(DoubleV a, DoubleV b) { return (DoubleV)_mm512_max_pd((__m512d)a, (__m512d)b); }
NTK_HD FloatV min(FloatV a, FloatV b) { return (FloatV)_mm512_min_ps((__m512)a, (__m512)b); }
NTK_HD DoubleV min(DoubleV a, DoubleV b) { return (DoubleV)_mm512_min_pd((__m512d)a, (__m512d)b); }
NTK_HD bool any_below(FloatV x, float t) {
  return _mm512_cmp_ps_mask((__m512)x, _mm512_set1_ps(t), _CMP_LT_OQ) != 0;
}
NTK_HD bool any_below(DoubleV x, double t) {
  return _mm512_cmp_pd_mask((__m512d)x, _mm512_set1_pd(t), _CMP_LT_OQ) != 0;
}
#else
#if defined(__AVX2__)
NTK_HD FloatV sqrt(FloatV x) { return (FloatV)_mm256_sqrt_ps((__m256)x); }
NTK_HD DoubleV sqrt(DoubleV x) { return (DoubleV)_mm256_sqrt_pd((__m256d)x); }
NTK_HD FloatV max(FloatV a, FloatV b) { return (FloatV)_mm256_max_ps((__m256)a, (__m256)b); }
NTK_HD DoubleV max(DoubleV a, DoubleV b) { return (DoubleV)_mm256_max_pd((__m256d)a, (__m256d)b); }
NTK_HD FloatV min(FloatV a, FloatV b) { return (FloatV)_mm256_min_ps((__m256)a, (__m256)b); }
NTK_HD DoubleV min(DoubleV a, DoubleV b) { return (DoubleV)_mm256_min_pd((__m256d)a, (__m256d)b); }
#else
template <class V>
NTK_HD V lanewise_sqrt(V x) {
  for (unsigned i = 0; i < sizeof(V) / sizeof(x[0]); ++i) x[i] = sqrt(x[i]);
  return x;
}
NTK_HD FloatV sqrt(FloatV x) { return lanewise_sqrt(x); }
NTK_HD DoubleV sqrt(DoubleV x) { return lanewise_sqrt(x); }
NTK_HD FloatV max(FloatV a, FloatV b) { return a > b ? a : b; }
NTK_HD DoubleV max(DoubleV a, DoubleV b) { return a > b ? a : b; }
NTK_HD FloatV min(FloatV a, FloatV b) { return a < b ? a : b; }
NTK_HD DoubleV min(DoubleV a, DoubleV b) { return a < b ? a : b; }
#endif
template <class V>
NTK_HD bool any_below(V x, typename Scalar<V>::type t) {
  bool any = false;
  for (unsigned i = 0; i < sizeof(V) / sizeof(t); ++i) any |= x[i] < t;
  return any;
}
#endif

#if defined(__AVX512F__)
NTK_HD float largest_lane(FloatV x) { return _mm512_reduce_max_ps((__m512)x); }
NTK_HD double largest_lane(DoubleV x) { return _mm512_reduce_max_pd((__m512d)x); }
#else
template <class V>
NTK_HD auto largest_lane(V x) {
  auto top = x[0];
  for (unsigned i = 1; i < sizeof(V) / sizeof(x[0]); ++i) top = top > x[i] ? top : x[i];
  return top;
}
#endif
NTK_HD int highest(FloatV x, int limit) { return highest(largest_lane(x), limit); }
NTK_HD int highest(DoubleV x, int limit) { return highest(largest_lane(x), limit); }

NTK_HD FloatV abs(FloatV x) { return (FloatV)((Int32V)x & 0x7fffffff); }
NTK_HD DoubleV abs(DoubleV x) { return (DoubleV)((Int64V)x & 0x7fffffffffffffffLL); }

// e^x = 2^n e^r, |r| <= ln2/2: n by the rounding of x log2(e) + 1.5 2^m, e^r by its Taylor series.
// Below the normal range the result is clamped to the smallest normal number's neighbourhood, far
// under any kernel's rounding.
template <class T, int kTerms, class V>
NTK_HD V exp_of(V x, T magic, T ln2_high, T ln2_low, T lowest, T highest, int mantissa) {
  using I = typename Vector<T>::integer;
  x = min(max(x, splat(lowest)), splat(highest));
  const V shifted = x * T(1.44269504088896340736) + magic;
  const V n = shifted - magic;
  const V r = (x - n * ln2_high) - n * ln2_low;
  V p = splat(T(1));
  for (int k = kTerms; k > 0; --k) p = T(1) + p * r * T(1.0 / k);
  return (V)((I)p + ((I)shifted << mantissa));
}
NTK_HD FloatV exp(FloatV x) {
  return exp_of<float, 7>(x, 12582912.f, 0.693359375f, -2.12194440e-4f, -87.f, 88.f, 23);
}
NTK_HD DoubleV exp(DoubleV x) {
  return exp_of<double, 13>(x, 6755399441055744., 0.693147180369123816490,
                            1.90821492927058770002e-10, -708., 709., 52);
}

NTK_HD FloatV if_negative(FloatV x, FloatV a, FloatV b) { return x < FloatV{} ? a : b; }
NTK_HD DoubleV if_negative(DoubleV x, DoubleV a, DoubleV b) { return x < DoubleV{} ? a : b; }

// a0 b0 a1 b1 … of the lower (upper) halves of a and b.
template <class T, bool kUpper, class V>
NTK_HD V interleave(V a, V b) {
  constexpr int n = kLanes<T>;
#if defined(__clang__)
  V r;
  for (int l = 0; l < n; ++l) r[l] = (l % 2 ? b : a)[l / 2 + (kUpper ? n / 2 : 0)];
  return r;
#else
  typename Vector<T>::integer lanes;
  for (int l = 0; l < n; ++l) lanes[l] = l / 2 + (kUpper ? n / 2 : 0) + (l % 2 ? n : 0);
  return __builtin_shuffle(a, b, lanes);
#endif
}

}  // namespace ntk

// After the vectors' functions: built-in vectors have no namespace to find them by.
#include "../math/pack.h"

namespace ntk {

// The lanes' lower and upper half in double, and back.
typedef float HalfV __attribute__((vector_size(NTK_VECTOR_BYTES / 2)));
NTK_HD Pack<DoubleV, 2> doubles(FloatV x) {
  HalfV half[2];
  __builtin_memcpy(half, &x, sizeof x);
  return {{__builtin_convertvector(half[0], DoubleV), __builtin_convertvector(half[1], DoubleV)}};
}
NTK_HD FloatV floats(const Pack<DoubleV, 2>& x) {
  const HalfV half[2] = {__builtin_convertvector(x.v[0], HalfV),
                         __builtin_convertvector(x.v[1], HalfV)};
  FloatV both;
  __builtin_memcpy(&both, half, sizeof both);
  return both;
}

// Vector i from p + i * step.
template <int n, class T>
NTK_HD Pack<typename Vector<T>::type, n> load_pack(const T* p, std::int64_t step) {
  Pack<typename Vector<T>::type, n> r;
  for (int i = 0; i < n; ++i) r.v[i] = load(p + i * step);
  return r;
}

}  // namespace ntk
