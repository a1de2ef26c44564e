// A tile of pairs of vectors on a Device (see image_run.h), a thread for every pair.
#pragma once

#include <initializer_list>
#include <vector>

#include "pairs.h"

namespace ntk {

constexpr int kWideBytes = 16;  // the widest load

// May the columns of a tile be taken kWide at a time, every group aligned to its size?
template <class T>
bool in_groups(const Tile<T>& tile, int wide) {
  const PointsView<T>& points = tile.col_points;
  const std::initializer_list<std::int64_t> sizes{tile.col, tile.cols, tile.dot_stride, tile.stride, points.stride};
  for (const std::int64_t n : sizes)
    if (n % wide != 0) return false;
  std::vector<const T*> starts{tile.dot, points.table};
  for (int k = 0; k < tile.program.outputs; ++k) starts.insert(starts.end(), {tile.nngp[k], tile.ntk[k]});
  for (const T* start : starts)
    if (reinterpret_cast<std::uintptr_t>(start) % (wide * sizeof(T)) != 0) return false;
  return true;
}

template <class T, int kWide, class Device>
void run_chain(const Tile<T>& tile, const Chain<T>& chain, const Sink<T>& sink, Device& device) {
  const std::int64_t groups = tile.cols / kWide;
  device.each(tile.rows * groups, ChainPairOp<T, kWide>{chain, tile.row_points, tile.col_points, tile.row, tile.col,
                                                        groups, tile.dot, tile.dot_stride, tile.diagonal, sink});
}

// `tile` holds host arrays of pointers and ops; what they point to, and its views, lie where the device can read.
template <class T, class Device>
void run_vectors(const Tile<T>& tile, Device& device) {
  const int outputs = tile.program.outputs;
  const bool square = tile.diagonal;  // one triangle is computed and is its own mirror image
  const Sink<T> sink{device.upload(tile.nngp, outputs), device.upload(tile.ntk, outputs),
                     device.upload(square ? tile.nngp : tile.nngp_mirror, outputs),
                     device.upload(square ? tile.ntk : tile.ntk_mirror, outputs), tile.stride};
  if (is_relu_chain(tile.program)) {
    std::vector<ChainLayer<T>> layers(tile.program.size);
    std::vector<ChainEmit<T>> emits(tile.program.size);
    Chain<T> chain = make_chain(tile, layers.data(), emits.data());
    const ChainEmit<T>* uploaded = device.upload(emits.data(), emits.size());
    for (int k = 0; k < chain.depth; ++k) layers[k].emits = uploaded + (layers[k].emits - emits.data());
    chain.layers = device.upload(layers.data(), chain.depth);
    constexpr int kWide = kWideBytes / sizeof(T);
    if (in_groups(tile, kWide))
      run_chain<T, kWide>(tile, chain, sink, device);
    else
      run_chain<T, 1>(tile, chain, sink, device);
  } else {
    Program program = tile.program;
    program.ops = device.upload(program.ops, program.size);
    device.each(tile.rows * tile.cols, PairOp<T>{program, tile.row_points, tile.col_points, tile.row, tile.col,
                                                 tile.cols, tile.dot, tile.dot_stride, tile.diagonal, sink});
  }
  if (square) device.each(tile.rows * outputs, DiagonalOp<T>{tile.row_points, tile.row, tile.rows, sink});
}

}  // namespace ntk
