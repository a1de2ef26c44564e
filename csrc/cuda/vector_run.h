// A tile of pairs of vectors on a Device (see image_run.h; squares(n, f): f.run<Block>(i, shared
// memory) for n blocks).
#pragma once

#include <algorithm>
#include <stdexcept>
#include <vector>

#include "../tile_chain.h"
#include "squares.h"

namespace ntk {

constexpr int kMostSlots = 64;  // of a thread

template <class T, class Device>
class VectorRun {
 public:
  // `tile` holds host arrays of pointers and ops; what they point to, and its views, lie where the
  // device can read. Of a diagonal tile one triangle is computed and is its own mirror image.
  VectorRun(const Tile<T>& tile, Device& device)
      : tile_(tile),
        device_(device),
        results_(upload_results(mirrored(tile), tile.program.outputs, device)) {}

  void run() {
    if (is_relu_chain(tile_.program))
      wants_ntk() ? run_chain<true>() : run_chain<false>();
    else if (tile_.program.slots == 1)
      run_program<1>();
    else if (tile_.program.slots == 2)
      run_program<2>();
    else if (tile_.program.slots <= kMostSlots)
      run_program<kMostSlots>();
    else
      throw std::invalid_argument(
          "a network of vectors on the GPU has at most 64 branches at a time: use fewer, or NumPy "
          "arrays and backend=None");
    if (tile_.diagonal)
      device_.each(tile_.rows * tile_.program.outputs,
                   DiagonalOp<T>{tile_.row_points, tile_.row, tile_.rows, results_});
  }

 private:
  static Results<T> mirrored(const Tile<T>& tile) {
    if (!tile.diagonal) return tile;
    return {tile.nngp, tile.ntk, tile.nngp, tile.ntk, tile.stride};
  }
  bool wants_ntk() const {
    return std::any_of(tile_.ntk, tile_.ntk + tile_.program.outputs,
                       [](T* out) { return out != nullptr; });
  }
  template <class Op>
  auto job() const {
    using At = typename Op::At;
    return SquareJob<T, At>{tile_.row_points,
                            tile_.col_points,
                            tile_.row,
                            tile_.col,
                            tile_.dot,
                            tile_.dot_stride,
                            Squares<At>{tile_.rows, tile_.cols, tile_.diagonal},
                            results_};
  }

  template <bool kNtk>
  void run_chain() {
    std::vector<ChainLayer<T>> layers(tile_.program.size);
    std::vector<ChainEmit<T>> emits(tile_.program.size);
    Chain<T> chain = make_chain(tile_, layers.data(), emits.data());
    const ChainEmit<T>* uploaded = device_.upload(emits.data(), emits.size());
    for (int k = 0; k < chain.depth; ++k)
      layers[k].emits = uploaded + (layers[k].emits - emits.data());
    chain.layers = device_.upload(layers.data(), chain.depth);
    using Op = ChainOp<T, kNtk>;
    launch(Op{job<Op>(), chain});
  }
  template <int kSlots>
  void run_program() {
    using Op = ProgramOp<T, kSlots>;
    launch(Op{job<Op>(), upload_steps<T>(tile_.program, device_)});
  }
  template <class Op>
  void launch(const Op& op) {
    device_.squares(op.job.squares.count(), op);
  }

  const Tile<T>& tile_;
  Device& device_;
  Results<T> results_;
};

}  // namespace ntk
