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

// The chain of a program for which is_relu_chain() holds, in memory for `size` layers and emits.
template <class T>
Chain<T> make_chain(const Tile<T>& tile, ChainLayer<T>* layers, ChainEmit<T>* emits) {
  const Program& program = tile.program;
  const PointsView<T>&r = tile.row_points, &c = tile.col_points;
  ChainLayer<T>* layer = layers - 1;
  bool positive = false;
  for (int k = 0; k < program.size; ++k) {
    const Op& op = program.ops[k];
    if (op.kind == OpKind::affine) {
      const Affine<double> map = op.constants.affine();
      (++layer)->affine = {map.b > 0 || map.f > 0, T(map.b > 0 ? map.f / map.b : 0),
                           r.feature(k, 0),        c.feature(k, 0),
                           r.feature(k, 1),        c.feature(k, 1)};
    } else if (op.kind == OpKind::pointwise) {
      const ABRelu<double> phi(op.constants.p);
      const double scale = phi.g + phi.h, eps = next_eps(program, k);
      const bool relu = phi.h == 0;  // gamma = 1: E >= 0, so c >= 0 from here on
      layer->relu = {relu && eps == 1, positive, T(phi.g / scale), T(scale), T(eps), r.feature(k, 1), c.feature(k, 1)};
      layer->emits = emits;
      layer->emit_count = 0;
      positive = relu;
    } else {
      Affine<double> map = op.constants.affine();
      map.e -= map.a * next_eps(program, k);
      *emits++ = {map.as<T>(), tile.nngp[op.other], tile.ntk[op.other], op.other};
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
