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

  static const Backend& backend(const std::string& name) { return backend_named(name); }
  static bool fits(const PlaneProgram& program, const py::array& x) {
    // Of one row, they may be sequences.
    const int axes = int(x.ndim()), w = axes - 2;
    const bool rows = axes == 4 ? x.shape(1) == program.h : axes == 3 && program.h == 1;
    return rows && x.shape(w) == program.w && x.shape(w + 1) == program.channels;
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

// Writes what a GPU needs of images x into the caller's arrays: pixels and tables, (strips,
// numbers).
void write_image_strips(std::shared_ptr<PlaneSchedule> program, const std::string& backend,
                        const py::array& x, py::array pixels, py::array table) {
  const Backend& runner = backend_named(backend);
  with_samples<OnPlanes>(*program, x, [&](auto tag, const auto* images, std::int64_t size) {
    using T = decltype(tag);
    constexpr std::int64_t N = kImageLanes<T>;
    const std::int64_t strips = (size + N - 1) / N, width = x.size() / size;
    const auto fits = [&](const py::array& array, std::int64_t numbers) {
      return py::isinstance<Array<T>>(array) && array.ndim() == 2 && array.shape(0) == strips &&
             array.shape(1) == numbers * N;
    };
    require(fits(pixels, width) && fits(table, program->table_size()),
            "images: strips of a wrong shape or dtype");
    T* const to_pixels = static_cast<T*>(pixels.mutable_data());
    T* const to_table = static_cast<T*>(table.mutable_data());
    py::gil_scoped_release release;
    image_strips<T>(*program, runner, images, size, to_pixels, to_table);
  });
}

}  // namespace

void bind_images(py::module_& m) {
  bind_blocks<OnPlanes>(m, "Images", "What depends on one image only; see csrc/samples/images.h.");
  m.def("image_strips", &write_image_strips,
        "Writes pixels and tables of strips of images; see csrc/samples/images.h.",
        py::arg("program"), py::arg("backend"), py::arg("x"), py::arg("pixels"), py::arg("table"));
}

}  // namespace ntk
