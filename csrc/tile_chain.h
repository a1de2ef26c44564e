// A tile of a plain ReLU network as a chain (math/relu_chain.h): the constants of its layers.
#pragma once

#include "backend.h"
#include "math/relu_chain.h"

namespace ntk {
namespace {

// e/a of the dense layer that follows op number k; 1 at the end.
inline double next_eps(const Program& program, int k) {
  for (; k < program.size; ++k)
    if (program.ops[k].kind == OpKind::affine) return program.ops[k].p[2] / program.ops[k].p[0];
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
    const double* p = op.p;
    if (op.kind == OpKind::affine) {
      (++layer)->affine = {p[1] > 0 || p[3] > 0, T(p[1] > 0 ? p[3] / p[1] : 0),
                           r.feature(k, 0),      c.feature(k, 0),
                           r.feature(k, 1),      c.feature(k, 1)};
    } else if (op.kind == OpKind::dual) {
      const double g = (p[0] - p[1]) * (p[0] - p[1]) / 2, scale = g + p[0] * p[1], eps = next_eps(program, k);
      const bool relu = p[0] * p[1] == 0;  // gamma = 1: E >= 0, so c >= 0 from here on
      layer->relu = {relu && eps == 1, positive, T(g / scale), T(scale), T(eps), r.feature(k, 1), c.feature(k, 1)};
      layer->emits = emits;
      layer->emit_count = 0;
      positive = relu;
    } else {
      *emits++ = {
          T(p[0]), T(p[1]), T(p[2] - p[0] * next_eps(program, k)), T(p[3]), tile.nngp[op.other], tile.ntk[op.other],
          op.other};
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
