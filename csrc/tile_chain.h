// A tile of a plain ReLU network as a chain (math/relu_chain.h): the constants of its layers.
#pragma once

#include "backend.h"
#include "math/relu_chain.h"

namespace ntk {
namespace {

// e/a of the dense layer that follows op number k; 1 at the end.
inline double next_eps(const Program& program, int k) {
  for (; k < program.size; ++k)
    if (program.ops[k].kind == OpKind::affine) {
      const Affine<double> map = program.ops[k].constants.affine();
      return map.e / map.a;
    }
  return 1;
}

template <class T>
ChainRelu<T> chain_relu(const Tile<T>& tile, int k, bool positive) {
  const ABRelu<double> phi(tile.program.ops[k].constants.p);
  const double scale = phi.g + phi.h, eps = next_eps(tile.program, k);
  const T *row_root = tile.row_points.feature(k, 1), *col_root = tile.col_points.feature(k, 1);
  return {phi.h == 0 && eps == 1, positive, T(phi.g / scale), T(scale), T(eps), row_root, col_root};
}

// How many layers from each one on are plain steps; the last one is read out.
template <class T>
void count_runs(ChainLayer<T>* layers, int depth) {
  layers[depth - 1].run = 0;
  for (int l = depth - 2; l >= 0; --l) {
    const ChainLayer<T>& at = layers[l];
    const bool plain = at.relu.pure && at.relu.positive && !at.affine.bias && at.emit_count == 0;
    layers[l].run = plain ? layers[l + 1].run + 1 : 0;
  }
}

// The chain of a program for which is_relu_chain() holds, in memory for `size` layers and emits.
template <class T>
Chain<T> make_chain(const Tile<T>& tile, ChainLayer<T>* layers, ChainEmit<T>* emits) {
  const Program& program = tile.program;
  const PointsView<T>&r = tile.row_points, &c = tile.col_points;
  ChainLayer<T>* layer = layers - 1;
  bool positive = false;  // is c >= 0 known
  for (int k = 0; k < program.size; ++k) {
    const Op& op = program.ops[k];
    Affine<double> map = op.constants.affine();
    if (op.kind == OpKind::affine) {
      const T phi = T(map.b > 0 ? map.f / map.b : 0);
      (++layer)->affine = {map.b > 0 || map.f > 0, phi,
                           r.feature(k, 0),        c.feature(k, 0),
                           r.feature(k, 1),        c.feature(k, 1)};
    } else if (op.kind == OpKind::pointwise) {
      layer->relu = chain_relu(tile, k, positive);
      layer->emits = emits;
      layer->emit_count = 0;
      positive = ABRelu<double>(op.constants.p).h == 0;  // gamma = 1, so E >= 0
    } else {
      map.e -= map.a * next_eps(program, k);
      *emits++ = {map.as<T>(), tile.nngp[op.other], tile.ntk[op.other], op.other};
      ++layer->emit_count;
    }
  }
  const int depth = int(layer - layers) + 1;
  count_runs(layers, depth);
  return {T(next_eps(program, 0)), depth, layers};
}

}  // namespace
}  // namespace ntk
