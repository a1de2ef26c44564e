// Blocks of images on displacement planes, their tables, and tiles of pairs of them.
#include "../samples/images.h"

#include <memory>

#include "../scratch.h"
#include "blocks.h"

namespace ntk {
namespace {

struct OnPlanes {
  using Schedule = PlaneSchedule;
  template <class T>
  using Samples = Images<T>;
  template <class T>
  static constexpr std::int64_t unit = kImageLanes<T>;
  static constexpr const char* what = "images";

  template <class T>
  static StripSizes strip(const PlaneSchedule& schedule) {
    const PlaneProgram program = schedule.view();
    constexpr std::int64_t N = kImageLanes<T>;
    return {N, N * program.h * program.w * program.channels, N * schedule.table_size()};
  }
  static bool fits(const PlaneProgram& program, const py::array& x) {
    // Of one row, they may be sequences.
    const int axes = int(x.ndim()), w = axes - 2;
    const bool rows = axes == 4 ? x.shape(1) == program.h : axes == 3 && program.h == 1;
    return rows && x.shape(w) == program.w && x.shape(w + 1) == program.channels;
  }
  template <class T>
  static void strips(const PlaneSchedule& schedule, const Backend& backend, const T* x,
                     std::int64_t size, T* pixels, T* table) {
    image_strips(schedule, backend, x, size, pixels, table);
  }
  template <class T>
  static ImageDiagonal diagonal(const PlaneSchedule& schedule, const Backend& backend, const T* x,
                                std::int64_t size) {
    return image_diagonal(schedule, backend, x, size);
  }
  template <class T>
  static void evaluate(const Backend& backend, ImageTile<T> tile) {
    const AlignedMemory workspace(backend.image_bytes(tile.program));
    tile.workspace = workspace.get();
    backend.in<T>().evaluate_images(tile);
  }
};

}  // namespace

void bind_images(py::module_& m) {
  bind_blocks<OnPlanes>(m, "Images", "What depends on one image only; see csrc/samples/images.h.");
}

}  // namespace ntk
