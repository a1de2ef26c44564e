// The CPU executor of one instruction set: compiled once for each, under the namespace NTK_ISA.
#include "chain.h"
#include "strip.h"

namespace ntk {
namespace {

template <class T>
bool wants_ntk(const Tile<T>& tile) {
  for (int o = 0; o < tile.program.outputs; ++o)
    if (tile.ntk[o]) return true;
  return false;
}

template <class T>
void evaluate(const Tile<T>& tile) {
  const bool ntk = wants_ntk(tile);
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

}  // namespace

namespace NTK_ISA {
void evaluate_float(const Tile<float>& tile) { evaluate(tile); }
void evaluate_double(const Tile<double>& tile) { evaluate(tile); }
std::int64_t workspace_bytes(const Program& program) {
  const std::int64_t chain = program.size * std::int64_t(sizeof(ChainLayer<double>) + sizeof(ChainEmit<double>));
  const std::int64_t strip = 2 * program.slots * kStrip * std::int64_t(sizeof(double));
  return chain > strip ? chain : strip;
}
}  // namespace NTK_ISA

}  // namespace ntk
