// Blocks of samples with positions, and tiles of pairs of them, of either engine: what is an
// engine's own stands in a struct, OnPlanes of images.cpp or Full of full.cpp.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <variant>

#include "../samples/images.h"
#include "../stop.h"
#include "bind.h"
#include "results.h"

namespace ntk {

// Samples of a strip, and the numbers that it holds of them in pixels and tables (ImagesView).
struct StripSizes {
  std::int64_t samples, pixels, table;
};

// In float32 or float64; keeps its program alive.
template <class Engine>
struct Block {
  std::shared_ptr<typename Engine::Schedule> program;
  std::variant<typename Engine::template Samples<float>, typename Engine::template Samples<double>>
      samples;
};

// Calls f(element{}, values, number of samples) for samples x that fit the program.
template <class Engine, class F>
auto with_samples(const typename Engine::Schedule& schedule, const py::array& x, F&& f) {
  const std::string what = Engine::what;
  const std::string refusal = what + ": x must be a C-contiguous float32 or float64 array";
  return with_precision(x, refusal.c_str(), [&](const auto& data) {
    using T = typename std::decay_t<decltype(data)>::value_type;
    require(x.size() > 0 && Engine::fits(schedule.view(), x),
            what + ": x does not have the program's shape");
    return f(T{}, data.data(), std::int64_t(x.shape(0)));
  });
}

template <class Engine>
Block<Engine> block_of(std::shared_ptr<typename Engine::Schedule> program,
                       const std::string& backend, const py::array& x,
                       const std::optional<Array<double>>& head) {
  const std::string what = Engine::what;
  const Backend& runner = backend_named(backend);
  const std::int64_t rows = 2 * program->view().head.size;
  require(head || !program->head_needs_variance(),
          what + ": the head needs the variances of image_diagonal");
  require(!head || (head->ndim() == 2 && head->shape(0) == rows && head->shape(1) == x.shape(0)),
          what + ": head must have shape (2 ops, samples)");
  const double* features = head ? head->data() : nullptr;
  return with_samples<Engine>(
      *program, x, [&](auto tag, const auto* values, std::int64_t size) -> Block<Engine> {
        using Samples = typename Engine::template Samples<decltype(tag)>;
        py::gil_scoped_release release;
        return {program, Samples(*program, runner, values, size, features, size)};
      });
}

template <class Engine>
py::tuple diagonal_of(std::shared_ptr<typename Engine::Schedule> program,
                      const std::string& backend, const py::array& x) {
  const Backend& runner = backend_named(backend);
  return with_samples<Engine>(
      *program, x, [&](auto, const auto* values, std::int64_t size) -> py::tuple {
        const Program head = program->view().head;
        const std::int64_t outputs = head.outputs, rows = 2 * head.size;
        const ImageDiagonal result = [&] {
          py::gil_scoped_release release;
          return Engine::diagonal(*program, runner, values, size);
        }();
        return py::make_tuple(py::array_t<double>({outputs, size}, result.nngp.data()),
                              py::array_t<double>({outputs, size}, result.ntk.data()),
                              py::array_t<double>({rows, size}, result.head.data()));
      });
}

// (samples, pixels, table) of a strip.
template <class Engine>
py::tuple strip_sizes(const typename Engine::Schedule& schedule, bool in_double) {
  const StripSizes s = in_double ? Engine::template strip<double>(schedule)
                                 : Engine::template strip<float>(schedule);
  return py::make_tuple(s.samples, s.pixels, s.table);
}

// Writes what a GPU needs of samples x into the caller's arrays: pixels and tables, (strips,
// numbers).
template <class Engine>
void write_strips(std::shared_ptr<typename Engine::Schedule> program, const std::string& backend,
                  const py::array& x, py::array pixels, py::array table) {
  const Backend& runner = backend_named(backend);
  with_samples<Engine>(*program, x, [&](auto tag, const auto* values, std::int64_t size) {
    using T = decltype(tag);
    const StripSizes strip = Engine::template strip<T>(*program);
    const std::int64_t strips = (size + strip.samples - 1) / strip.samples;
    const auto fits = [&](const py::array& array, std::int64_t numbers) {
      return py::isinstance<Array<T>>(array) && array.ndim() == 2 && array.shape(0) == strips &&
             array.shape(1) == numbers;
    };
    require(fits(pixels, strip.pixels) && fits(table, strip.table),
            std::string(Engine::what) + ": strips of a wrong shape or dtype");
    T* const to_pixels = static_cast<T*>(pixels.mutable_data());
    T* const to_table = static_cast<T*>(table.mutable_data());
    py::gil_scoped_release release;
    Engine::strips(*program, runner, values, size, to_pixels, to_table);
  });
}

template <class T, class Engine>
Found evaluate_as(const Backend& backend, const Pairs<Block<Engine>>& pairs, ResultArrays& results,
                  bool diagonal) {
  using Samples = typename Engine::template Samples<T>;
  // Checks.
  const auto program = pairs.rows.program->view();
  const ImagesView<T> rows = std::get<Samples>(pairs.rows.samples).view();
  const ImagesView<T> cols = std::get<Samples>(pairs.cols.samples).view();
  const TileShape shape = shape_of(results.nngp, results.ntk);
  const std::int64_t unit = Engine::template unit<T>;
  const Place place = pairs.place("evaluate", shape, rows.size, cols.size, unit);
  const bool square = pairs.row == pairs.col && shape.rows == shape.cols;
  require(!diagonal || square, "evaluate: not a diagonal tile");
  const ResultPointers<T> out(results, program.head.outputs, shape);
  // The engine, without the GIL.
  py::gil_scoped_release release;
  Engine::template evaluate<T>(backend,
                               {place, out.view(), program, rows, cols, diagonal, nullptr});
  if (stopped()) throw Stopped();  // the tile is not whole
  return out.not_finite(backend, diagonal);
}

template <class Engine>
Found evaluate_blocks(const std::string& backend, const Block<Engine>& rows, std::int64_t row,
                      const Block<Engine>& cols, std::int64_t col, const Arrays& nngp,
                      const Arrays& ntk, const Arrays& nngp_mirror, const Arrays& ntk_mirror,
                      bool diagonal) {
  require(rows.program == cols.program, "evaluate: rows and columns belong to different programs");
  require(rows.samples.index() == cols.samples.index(),
          "evaluate: rows and columns differ in dtype");
  const auto call =
      rows.samples.index() == 0 ? evaluate_as<float, Engine> : evaluate_as<double, Engine>;
  ResultArrays results{nngp, ntk, nngp_mirror, ntk_mirror};
  return call(backend_named(backend), {rows, cols, row, col}, results, diagonal);
}

// Both engines' functions go by the same names.
template <class Engine>
void bind_blocks(py::module_& m, const char* name, const char* documentation) {
  py::class_<Block<Engine>, std::shared_ptr<Block<Engine>>>(m, name, documentation)
      .def(py::init(&block_of<Engine>), py::arg("program"), py::arg("backend"), py::arg("x"),
           py::arg("head") = py::none());
  m.def("image_diagonal", &diagonal_of<Engine>,
        "Kernel diagonals (outputs, n), NNGP and NTK, and the head's features.", py::arg("program"),
        py::arg("backend"), py::arg("x"));
  m.def("strip_sizes", &strip_sizes<Engine>,
        "Samples of a strip, and how many numbers it holds in pixels and tables.",
        py::arg("program"), py::arg("in_double"));
  m.def("image_strips", &write_strips<Engine>,
        "Writes pixels and tables of strips of samples; see csrc/samples/.", py::arg("program"),
        py::arg("backend"), py::arg("x"), py::arg("pixels"), py::arg("table"));
  m.def("evaluate_images", &evaluate_blocks<Engine>,
        "Evaluate a program on one tile of pairs; see csrc/backend.h. Returns (row, column) of a "
        "result that is not finite, or None.",
        py::arg("backend"), py::arg("rows"), py::arg("row"), py::arg("cols"), py::arg("col"),
        py::arg("nngp"), py::arg("ntk"), py::arg("nngp_mirror"), py::arg("ntk_mirror"),
        py::arg("diagonal"));
}

}  // namespace ntk
