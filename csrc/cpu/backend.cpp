// The CPU backend of one instruction set: compiled once for each, under the namespace NTK_ISA.
#include "chain.h"
#include "full.h"
#include "gradient.h"
#include "images.h"
#include "look.h"

namespace ntk {
namespace {

template <class T>
bool any(T* const* results, int count) {
  for (int o = 0; o < count; ++o)
    if (results[o]) return true;
  return false;
}

template <class T>
void evaluate_tile(const Tile<T>& tile) {
  const bool ntk = any(tile.ntk, tile.program.outputs);
  if (is_relu_chain(tile.program)) {
    auto* layers = reinterpret_cast<ChainLayer<T>*>(tile.workspace);
    auto* emits = reinterpret_cast<ChainEmit<T>*>(layers + tile.program.size);
    const Chain<T> chain = make_chain(tile, layers, emits);
    ntk ? run_chain<T, true>(tile, chain) : run_chain<T, false>(tile, chain);
  } else {
    ntk ? run_strips<T, true>(tile) : run_strips<T, false>(tile);
  }
  finish(tile);
}

template <class T>
void evaluate_image_tile(const ImageTile<T>& tile) {
  any(tile.ntk, tile.program.head.outputs) ? run_images<T, true>(tile) : run_images<T, false>(tile);
}

template <class T>
void evaluate_full_tile(const FullTile<T>& tile) {
  any(tile.ntk, tile.program.head.outputs) ? run_full<T, true>(tile) : run_full<T, false>(tile);
}

}  // namespace

namespace NTK_ISA {
void evaluate(const Tile<float>& tile) { evaluate_tile(tile); }
void evaluate(const Tile<double>& tile) { evaluate_tile(tile); }
void evaluate_images(const ImageTile<float>& tile) { evaluate_image_tile(tile); }
void evaluate_images(const ImageTile<double>& tile) { evaluate_image_tile(tile); }
void evaluate_full(const FullTile<float>& tile) { evaluate_full_tile(tile); }
void evaluate_full(const FullTile<double>& tile) { evaluate_full_tile(tile); }
bool is_finite(const float* data, std::int64_t count) { return row_is_finite(data, count); }
bool is_finite(const double* data, std::int64_t count) { return row_is_finite(data, count); }
void gradient(const GradientTile& tile) { GradientRun(tile).run(); }
void self_strip(const SelfStrip& self) { run_self(self); }
std::int64_t image_bytes(const PlaneProgram& program) { return image_scratch_bytes(program); }
void full_self(const FullSelf& self) { run_full_self(self); }
std::int64_t full_bytes(const FullProgram& program) { return full_scratch_bytes(program); }
Extremes extremes(const float* data, std::int64_t rows, std::int64_t cols, std::int64_t stride) {
  return find_extremes(data, rows, cols, stride);
}
std::int64_t workspace_bytes(const Program& program) {
  const std::int64_t chain =
      program.size * std::int64_t(sizeof(ChainLayer<double>) + sizeof(ChainEmit<double>));
  const std::int64_t strip = 2 * program.slots * kStrip * std::int64_t(sizeof(double));
  return chain > strip ? chain : strip;
}
}  // namespace NTK_ISA

}  // namespace ntk
