// A tile of pairs of vectors on a Device (see image_run.h), a thread for every pair.
#pragma once

#include <vector>

#include "pairs.h"

namespace ntk {

// `tile` holds host arrays of pointers and ops; what they point to, and its views, lie where the device can read.
template <class T, class Device>
void run_vectors(const Tile<T>& tile, Device& device) {
  const int outputs = tile.program.outputs;
  const bool square = tile.diagonal;  // one triangle is computed and is its own mirror image
  const Sink<T> sink{device.upload(tile.nngp, outputs), device.upload(tile.ntk, outputs),
                     device.upload(square ? tile.nngp : tile.nngp_mirror, outputs),
                     device.upload(square ? tile.ntk : tile.ntk_mirror, outputs), tile.stride};
  const std::int64_t pairs = tile.rows * tile.cols;
  if (is_relu_chain(tile.program)) {
    std::vector<ChainLayer<T>> layers(tile.program.size);
    std::vector<ChainEmit<T>> emits(tile.program.size);
    Chain<T> chain = make_chain(tile, layers.data(), emits.data());
    const ChainEmit<T>* uploaded = device.upload(emits.data(), emits.size());
    for (int k = 0; k < chain.depth; ++k) layers[k].emits = uploaded + (layers[k].emits - emits.data());
    chain.layers = device.upload(layers.data(), chain.depth);
    device.each(pairs, ChainPairOp<T>{chain, tile.row_points, tile.col_points, tile.row, tile.col, tile.cols, tile.dot,
                                      tile.dot_stride, tile.diagonal, sink});
  } else {
    Program program = tile.program;
    program.ops = device.upload(program.ops, program.size);
    device.each(pairs, PairOp<T>{program, tile.row_points, tile.col_points, tile.row, tile.col, tile.cols, tile.dot,
                                 tile.dot_stride, tile.diagonal, sink});
  }
  if (square) device.each(tile.rows * outputs, DiagonalOp<T>{tile.row_points, tile.row, tile.rows, sink});
}

}  // namespace ntk
