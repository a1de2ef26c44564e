// Blocks of samples for full covariances, and tiles of pairs of them.
#include "../samples/full.h"

#include "../scratch.h"
#include "blocks.h"

namespace ntk {
namespace {

struct Full {
  using Schedule = FullSchedule;
  template <class T>
  using Samples = FullSamples<T>;
  template <class T>
  static constexpr std::int64_t unit = 1;
  static constexpr const char* what = "samples";

  template <class T>
  static StripSizes strip(const FullSchedule& schedule) {
    const std::int64_t pitch = pitch_of<T>(schedule.view());
    return {1, pitch * schedule.view().channels, pitch * schedule.table_rows()};
  }
  static bool fits(const FullProgram& program, const py::array& x) {
    const auto rank = x.ndim();
    const std::int64_t width = program.channels + program.beside.channels(program.positions);
    return rank >= 2 && x.shape(rank - 1) == width &&
           x.size() == x.shape(0) * program.positions * width;
  }
  template <class T>
  static void strips(const FullSchedule& schedule, const Backend& backend, const T* x,
                     std::int64_t size, T* pixels, T* table) {
    full_strips(schedule, backend, x, size, pixels, table);
  }
  template <class T>
  static ImageDiagonal diagonal(const FullSchedule& schedule, const Backend& backend, const T* x,
                                std::int64_t size) {
    return full_diagonal(schedule, backend, x, size);
  }
  template <class T>
  static void evaluate(const Backend& backend, FullTile<T> tile) {
    tile.workspace = kept_memory(backend.full_bytes(tile.program));
    backend.in<T>().evaluate_full(tile);
  }
};

}  // namespace

void bind_full(py::module_& m) {
  bind_blocks<Full>(m, "FullSamples", "What depends on one sample only; see csrc/samples/full.h.");
}

}  // namespace ntk
