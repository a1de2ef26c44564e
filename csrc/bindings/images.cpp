// Blocks of images, their tables, and tiles of pairs of them.
#include "../samples/images.h"

#include <memory>
#include <optional>
#include <variant>

#include "../scratch.h"
#include "../stop.h"
#include "bind.h"
#include "results.h"

namespace ntk {
namespace {

// --- images

// A block of images in float32 or float64; keeps its program alive.
struct AnyImages {
  std::shared_ptr<PlaneSchedule> program;
  std::variant<Images<float>, Images<double>> images;
};

// Calls f(element{}, pixels, number of images) for images x that fit the program.
template <class F>
auto with_images(const PlaneSchedule& schedule, const py::array& x, F&& f) {
  return with_precision(
      x, "images: x must be a C-contiguous float32 or float64 array", [&](const auto& data) {
        using T = typename std::decay_t<decltype(data)>::value_type;
        const PlaneProgram program = schedule.view();
        // Of one row, they may be sequences.
        const int axes = int(x.ndim()), w = axes - 2;
        const bool rows = axes == 4 ? x.shape(1) == program.h : axes == 3 && program.h == 1;
        const bool fits =
            rows && x.shape(0) > 0 && x.shape(w) == program.w && x.shape(w + 1) == program.channels;
        require(fits, "images: x does not have the program's shape");
        return f(T{}, data.data(), std::int64_t(x.shape(0)));
      });
}

AnyImages images_of(std::shared_ptr<PlaneSchedule> program, const std::string& backend,
                    const py::array& x, const std::optional<Array<double>>& head) {
  const Backend& runner = backend_named(backend);
  const std::int64_t head_rows = 2 * program->view().head.size;
  require(head || !program->head_needs_variance(),
          "images: the head needs the variances of image_diagonal");
  require(
      !head || (head->ndim() == 2 && head->shape(0) == head_rows && head->shape(1) == x.shape(0)),
      "images: head must have shape (2 ops, images)");
  const double* features = head ? head->data() : nullptr;
  return with_images(
      *program, x, [&](auto tag, const auto* pixels, std::int64_t size) -> AnyImages {
        py::gil_scoped_release release;
        return {program, Images<decltype(tag)>(*program, runner, pixels, size, features, size)};
      });
}

// Writes what a GPU needs of images x into the caller's arrays: pixels and tables, (strips,
// numbers).
void write_image_strips(std::shared_ptr<PlaneSchedule> program, const std::string& backend,
                        const py::array& x, py::array pixels, py::array table) {
  const Backend& runner = backend_named(backend);
  with_images(*program, x, [&](auto tag, const auto* images, std::int64_t size) {
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

py::tuple image_diagonal_of(std::shared_ptr<PlaneSchedule> program, const std::string& backend,
                            const py::array& x) {
  const Backend& runner = backend_named(backend);
  return with_images(*program, x, [&](auto, const auto* pixels, std::int64_t size) -> py::tuple {
    const std::int64_t outputs = program->view().head.outputs, rows = 2 * program->view().head.size;
    const ImageDiagonal result = [&] {
      py::gil_scoped_release release;
      return image_diagonal(*program, runner, pixels, size);
    }();
    return py::make_tuple(py::array_t<double>({outputs, size}, result.nngp.data()),
                          py::array_t<double>({outputs, size}, result.ntk.data()),
                          py::array_t<double>({rows, size}, result.head.data()));
  });
}

// --- tiles

template <class T>
Found evaluate_as(const Backend& backend, const Pairs<AnyImages>& pairs, ResultArrays& results,
                  bool diagonal) {
  // Checks.
  const PlaneProgram program = pairs.rows.program->view();
  const ImagesView<T> rows = std::get<Images<T>>(pairs.rows.images).view();
  const ImagesView<T> cols = std::get<Images<T>>(pairs.cols.images).view();
  const TileShape shape = shape_of(results.nngp, results.ntk);
  const Place place = pairs.place("evaluate", shape, rows.size, cols.size, kImageLanes<T>);
  const bool square = pairs.row == pairs.col && shape.rows == shape.cols;
  require(!diagonal || square, "evaluate: not a diagonal tile");
  const ResultPointers<T> out(results, program.head.outputs, shape);
  // The engine, without the GIL.
  py::gil_scoped_release release;
  const AlignedMemory workspace(backend.image_bytes(program));
  backend.in<T>().evaluate_images(
      {place, out.view(), program, rows, cols, diagonal, workspace.get()});
  if (stopped()) throw Stopped();  // the tile is not whole
  return out.not_finite(backend, diagonal);
}

Found evaluate_images(const std::string& backend, const Pairs<AnyImages>& pairs,
                      ResultArrays results, bool diagonal) {
  require(pairs.rows.program == pairs.cols.program,
          "evaluate: rows and columns belong to different programs");
  require(pairs.rows.images.index() == pairs.cols.images.index(),
          "evaluate: rows and columns differ in dtype");
  const auto call = pairs.rows.images.index() == 0 ? evaluate_as<float> : evaluate_as<double>;
  return call(backend_named(backend), pairs, results, diagonal);
}

}  // namespace

void bind_images(py::module_& m) {
  py::class_<AnyImages, std::shared_ptr<AnyImages>>(
      m, "Images", "What depends on one image only; see csrc/samples/images.h.")
      .def(py::init(&images_of), py::arg("program"), py::arg("backend"), py::arg("x"),
           py::arg("head") = py::none());
  m.def("image_strips", &write_image_strips,
        "Writes pixels and tables of strips of images; see csrc/samples/images.h.",
        py::arg("program"), py::arg("backend"), py::arg("x"), py::arg("pixels"), py::arg("table"));
  m.def("image_diagonal", &image_diagonal_of,
        "Kernel diagonals (outputs, n), NNGP and NTK, and the head's features.", py::arg("program"),
        py::arg("backend"), py::arg("x"));
  m.def(
      "evaluate_images",
      [](const std::string& backend, const AnyImages& rows, std::int64_t row, const AnyImages& cols,
         std::int64_t col, const Arrays& nngp, const Arrays& ntk, const Arrays& nngp_mirror,
         const Arrays& ntk_mirror, bool diagonal) {
        return evaluate_images(backend, {rows, cols, row, col},
                               {nngp, ntk, nngp_mirror, ntk_mirror}, diagonal);
      },
      "Evaluate an image program on one tile of pairs; see csrc/backend.h. Returns (row, column) "
      "of a result that is "
      "not finite, or None.",
      py::arg("backend"), py::arg("rows"), py::arg("row"), py::arg("cols"), py::arg("col"),
      py::arg("nngp"), py::arg("ntk"), py::arg("nngp_mirror"), py::arg("ntk_mirror"),
      py::arg("diagonal"));
}

}  // namespace ntk
