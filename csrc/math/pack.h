// Several values or vectors side by side, with the names that dual.h uses.
#pragma once

#include "portable.h"

namespace ntk {

// n values that go through the same arithmetic step by step. Of vectors on a CPU: n independent
// chains of instructions, side by side in the program, so that the processor's scheduler does not
// fill up with one long chain. Of 32 scalars on the host: a GPU's warp (cuda/warp.h).
template <class V, int n>
struct Pack {
  V v[n];
};
template <class V, int n>
struct Scalar<Pack<V, n>> {
  using type = typename Scalar<V>::type;
};
template <class V, int n>
NTK_HD int count(const Pack<V, n>&) {
  return n;
}

// A float in double, and back; vectors have overloads of their own.
NTK_HD Pack<double, 1> doubles(float x) { return {{x}}; }
NTK_HD float floats(const Pack<double, 1>& x) { return float(x.v[0]); }

#define NTK_PACK_OPERATOR(op)                                                      \
  template <class V, int n>                                                        \
  NTK_HD Pack<V, n> operator op(const Pack<V, n>& a, const Pack<V, n>& b) {        \
    Pack<V, n> r;                                                                  \
    for (int i = 0; i < n; ++i) r.v[i] = a.v[i] op b.v[i];                         \
    return r;                                                                      \
  }                                                                                \
  template <class V, int n>                                                        \
  NTK_HD Pack<V, n> operator op(const Pack<V, n>& a, typename Scalar<V>::type b) { \
    Pack<V, n> r;                                                                  \
    for (int i = 0; i < n; ++i) r.v[i] = a.v[i] op b;                              \
    return r;                                                                      \
  }                                                                                \
  template <class V, int n>                                                        \
  NTK_HD Pack<V, n> operator op(typename Scalar<V>::type a, const Pack<V, n>& b) { \
    Pack<V, n> r;                                                                  \
    for (int i = 0; i < n; ++i) r.v[i] = a op b.v[i];                              \
    return r;                                                                      \
  }
NTK_PACK_OPERATOR(+)
NTK_PACK_OPERATOR(-)
NTK_PACK_OPERATOR(*)
#undef NTK_PACK_OPERATOR

#define NTK_PACK_FUNCTION(name)                        \
  template <class V, int n>                            \
  NTK_HD Pack<V, n> name(const Pack<V, n>& a) {        \
    Pack<V, n> r;                                      \
    for (int i = 0; i < n; ++i) r.v[i] = name(a.v[i]); \
    return r;                                          \
  }
NTK_PACK_FUNCTION(sqrt)
NTK_PACK_FUNCTION(reciprocal)
NTK_PACK_FUNCTION(abs)
#undef NTK_PACK_FUNCTION

template <class V, int n>
NTK_HD Pack<V, n> max(const Pack<V, n>& a, typename Scalar<V>::type b) {
  Pack<V, n> r;
  for (int i = 0; i < n; ++i) r.v[i] = max(a.v[i], V{} + b);
  return r;
}
template <class V, int n>
NTK_HD Pack<V, n> min(const Pack<V, n>& a, const Pack<V, n>& b) {
  Pack<V, n> r;
  for (int i = 0; i < n; ++i) r.v[i] = min(a.v[i], b.v[i]);
  return r;
}
template <class V, int n>
NTK_HD Pack<V, n> min(const Pack<V, n>& a, typename Scalar<V>::type b) {
  Pack<V, n> r;
  for (int i = 0; i < n; ++i) r.v[i] = min(a.v[i], V{} + b);
  return r;
}
template <class V, int n>
NTK_HD Pack<V, n> if_negative(const Pack<V, n>& x, const Pack<V, n>& a, const Pack<V, n>& b) {
  Pack<V, n> r;
  for (int i = 0; i < n; ++i) r.v[i] = if_negative(x.v[i], a.v[i], b.v[i]);
  return r;
}

}  // namespace ntk
