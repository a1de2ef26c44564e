// Programs on pairs of points: their ops with constants prepared, and where results go. For vectors
// (squares.h) and the heads of image programs.
#pragma once

#include <new>
#include <type_traits>
#include <vector>

#include "../backend.h"
#include "../math/pack.h"

namespace ntk {

// Features of a program's ops for row and column points: [op][2][stride].
template <class T>
struct PairTables {
  const T *row, *col;
  std::int64_t row_stride, col_stride;
};

// An op whose constants are in the pairs' precision, made once a tile: those of pointwise ops start
// from double.
template <class T>
struct Step {
  OpKind kind;
  Pointwise pointwise;
  int slot, other;
  union {
    Affine<T> affine;  // of all but pointwise ops
#define NTK_MEMBER(name, Phi) Phi<T> name;
    NTK_FOR_EACH_POINTWISE(NTK_MEMBER)
#undef NTK_MEMBER
  };

  explicit Step(const Op& op)
      : kind(op.kind),
        pointwise(op.pointwise),
        slot(op.slot),
        other(op.other),
        affine(op.constants.affine().template as<T>()) {
    if (kind == OpKind::pointwise)
      visit_pointwise<T>(pointwise, op.constants, [&](const auto& phi) {
        using Phi = std::decay_t<decltype(phi)>;
        new (static_cast<void*>(&affine)) Phi(phi);
      });
  }
  // f(the pointwise op).
  template <class F>
  NTK_HD void visit(const F& f) const {
    switch (pointwise) {
#define NTK_CASE(name, Phi) \
  case Pointwise::name:     \
    f(name);                \
    break;
      NTK_FOR_EACH_POINTWISE(NTK_CASE)
#undef NTK_CASE
    }
  }
};

template <class T>
struct Steps {
  const Step<T>* ops;
  int size;
};
template <class T, class Device>
Steps<T> upload_steps(const Program& program, Device& device) {
  const std::vector<Step<T>> steps(program.ops, program.ops + program.size);
  return {device.upload(steps.data(), program.size), program.size};
}

// An affine or pointwise op on n pairs in one column: row(which) and col(which) are the op's
// features of the rows and the column.
template <class T, int n, class Row, class Col>
NTK_HD void take_step(const Step<T>& s, const Row& row, const Col& col, Pack<T, n>& k,
                      Pack<T, n>& t) {
  if (s.kind == OpKind::affine) {
    s.affine.template apply<true>(k, t);
  } else if (acts(s.pointwise)) {
    s.visit([&](const auto& phi) {
      for (int l = 0; l < n; ++l) {
        const auto row_of = [&](int which) { return row(which).v[l]; };
        T E, D;
        pair_of(phi, k.v[l], row_of, col, terms_of(phi, row_of, col), E, D);
        k.v[l] = E;
        t.v[l] *= D;
      }
    });
  }
}

// A program on one pair, whose slots start in K and t; emit(output, nngp, ntk) receives what comes
// out.
template <class T, class Emit>
NTK_HD void run_pair(const Steps<T>& program, const PairTables<T>& tables, std::int64_t row,
                     std::int64_t col, T* K, T* t, const Emit& emit) {
  for (int i = 0; i < program.size; ++i) {
    const Step<T>& s = program.ops[i];
    T &k = K[s.slot], &tk = t[s.slot];
    if (of_two_slots(s.kind)) {
      combine(s.kind, k, tk, K[s.other], t[s.other]);
    } else if (s.kind == OpKind::emit) {
      emit(s.other, s.affine.nngp(k), s.affine.ntk(k, tk));
    } else {
      Pack<T, 1> k1{{k}}, t1{{tk}};
      take_step(
          s,
          [&](int which) {
            return Pack<T, 1>{{tables.row[(2 * i + which) * tables.row_stride + row]}};
          },
          [&](int which) { return tables.col[(2 * i + which) * tables.col_stride + col]; }, k1, t1);
      k = k1.v[0], tk = t1.v[0];
    }
  }
}

// The results with their lists of pointers where the device can read.
template <class T, class Device>
Results<T> upload_results(const Results<T>& from, int outputs, Device& device) {
  const auto upload = [&](T* const* list) { return device.upload(list, outputs); };
  return {upload(from.nngp), upload(from.ntk), upload(from.nngp_mirror), upload(from.ntk_mirror),
          from.stride};
}

template <class T>
NTK_HD void put_value(T* out, T* mirror, std::int64_t stride, std::int64_t i, std::int64_t j,
                      T value) {
  if (out) out[i * stride + j] = value;
  if (out && mirror) mirror[j * stride + i] = value;
}
// Pair (i, j) of a tile, and its mirror image.
template <class T>
NTK_HD void put_pair(const Results<T>& to, int output, std::int64_t i, std::int64_t j, T nngp,
                     T ntk) {
  put_value(to.nngp[output], to.nngp_mirror[output], to.stride, i, j, nngp);
  put_value(to.ntk[output], to.ntk_mirror[output], to.stride, i, j, ntk);
}

// The head of a network of positions on the read-outs of one pair.
template <class T>
struct Head {
  Steps<T> steps;
  int slots;
  PairTables<T> tables;
  std::int64_t row, col;  // first samples of the tile
  Results<T> results;

  // Pair (i, j) of the tile; readouts: [slot][2]; room: [2][slot].
  NTK_HD void run(const double* readouts, std::int64_t i, std::int64_t j, T* room) const {
    T *const K = room, *const t = room + slots;
    for (int s = 0; s < slots; ++s) {
      K[s] = T(readouts[2 * s]);
      t[s] = T(readouts[2 * s + 1]);
    }
    run_pair(steps, tables, row + i, col + j, K, t,
             [&](int output, T nngp, T ntk) { put_pair(results, output, i, j, nngp, ntk); });
  }
};
// `tile`: of images or of full covariances.
template <class T, class AnyTile, class Device>
Head<T> upload_head(const AnyTile& tile, Device& device) {
  const Program& head = tile.program.head;
  const ImagesView<T>&rows = tile.row_images, &cols = tile.col_images;
  return {upload_steps<T>(head, device),
          head.slots,
          {rows.head_table, cols.head_table, rows.head_stride, cols.head_stride},
          tile.row,
          tile.col,
          upload_results<T>(tile, head.outputs, device)};
}

// The points' own values, where the correlation is exactly 1.
template <class T>
struct DiagonalOp {
  PointsView<T> points;
  std::int64_t row, rows;
  Results<T> results;

  NTK_HD void operator()(std::int64_t n) const {
    const int output = int(n / rows);
    const std::int64_t i = n % rows, at = output * points.size + row + i;
    put_pair(results, output, i, i, T(points.nngp[at]), T(points.ntk[at]));
  }
};

}  // namespace ntk
