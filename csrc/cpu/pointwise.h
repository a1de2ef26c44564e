// A pointwise op on vectors of pairs.
#pragma once

#include "tile.h"  // before ops.h, as for dual.h

#include "../math/ops.h"

namespace ntk {
namespace {

// n vectors of pairs from number i on.
template <class T, bool kNtk, int n, class Phi, class Row, class Col>
NTK_HD void pointwise_group(const Phi& phi, std::int64_t i, const Row& row, const Col& col,
                            int terms, T* K, T* t) {
  constexpr int L = kLanes<T>;
  using P = Pack<typename Vector<T>::type, n>;
  const auto packed = [&](const auto& side) __attribute__((always_inline)) {
    return [&, i](int k) __attribute__((always_inline)) {
      P r;
      for (int u = 0; u < n; ++u) r.v[u] = side(k, i + u);
      return r;
    };
  };
  P E, D;
  phi.pair(load_pack<n>(K + i * L, L), packed(row), packed(col), terms, E, D);
  for (int u = 0; u < n; ++u) {
    store(K + (i + u) * L, E.v[u]);
    if (kNtk) store(t + (i + u) * L, D.v[u] * load(t + (i + u) * L));
  }
}

// E of each pair into K, D times it into t; row(k, i) and col(k, i) are feature k of vector i.
// kOneRow: row(k, i) is that of i = 0.
template <class T, bool kNtk, bool kOneRow, class Phi, class Row, class Col>
NTK_HD void pointwise_pairs(const Phi& phi, std::int64_t vectors, const Row& row, const Col& col,
                            T* K, T* t) {
  using V = typename Vector<T>::type;
  constexpr int L = kLanes<T>;
  std::int64_t i = 0;
  if constexpr (is_series<Phi>) {
    V need = V{};
    for (; i < vectors; ++i) need = max(need, max(row(phi.needed(), i), col(phi.needed(), i)));
    const int terms = phi.terms_of(need);
    // Side by side: a sum is one long chain of instructions.
    constexpr int kUnroll = 2;
    for (i = 0; i + kUnroll <= vectors; i += kUnroll)
      pointwise_group<T, kNtk, kUnroll>(phi, i, row, col, terms, K, t);
    for (; i < vectors; ++i) pointwise_group<T, kNtk, 1>(phi, i, row, col, terms, K, t);
  } else {
    const V first = row(0, 0), second = row(1, 0);
    for (; i < vectors; ++i) {
      V E, D;
      phi.pair(load(K + i * L), kOneRow ? first : row(0, i), kOneRow ? second : row(1, i),
               col(0, i), col(1, i), E, D);
      store(K + i * L, E);
      if (kNtk) store(t + i * L, D * load(t + i * L));
    }
  }
}

}  // namespace
}  // namespace ntk
