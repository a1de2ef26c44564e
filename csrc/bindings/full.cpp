// Blocks of samples for full covariances, and tiles of pairs of them; Python calls these by the same
// names as those of images.
#include "../samples/full.h"

#include <memory>
#include <optional>
#include <variant>

#include "../scratch.h"
#include "../stop.h"
#include "bind.h"
#include "results.h"

namespace ntk {
namespace {

// A block of samples in float32 or float64; keeps its program alive.
struct AnyFull {
  std::shared_ptr<FullSchedule> program;
  std::variant<FullSamples<float>, FullSamples<double>> samples;
};

const Backend& full_backend(const std::string& name) {
  const Backend& backend = backend_named(name);
  require(backend.in_float.evaluate_full != nullptr,
          "backend '" + name + "' has no full covariances");
  return backend;
}

// Calls f(element{}, values, number of samples) for samples x that fit the program.
template <class F>
auto with_samples(const FullSchedule& schedule, const py::array& x, F&& f) {
  return with_precision(
      x, "samples: x must be a C-contiguous float32 or float64 array", [&](const auto& data) {
        using T = typename std::decay_t<decltype(data)>::value_type;
        const FullProgram program = schedule.view();
        const auto rank = x.ndim();
        require(rank >= 2 && x.size() > 0, "samples: x holds none");
        const bool fits =
            x.shape(rank - 1) == program.channels &&
            x.size() == x.shape(0) * std::int64_t(program.positions) * program.channels;
        require(fits, "samples: x does not have the program's shape");
        return f(T{}, data.data(), std::int64_t(x.shape(0)));
      });
}

AnyFull samples_of(std::shared_ptr<FullSchedule> program, const std::string& backend,
                   const py::array& x, const std::optional<Array<double>>& head) {
  const Backend& runner = full_backend(backend);
  const std::int64_t head_rows = 2 * program->view().head.size;
  require(head || !program->head_needs_variance(),
          "samples: the head needs the variances of image_diagonal");
  require(
      !head || (head->ndim() == 2 && head->shape(0) == head_rows && head->shape(1) == x.shape(0)),
      "samples: head must have shape (2 ops, samples)");
  const double* features = head ? head->data() : nullptr;
  return with_samples(*program, x, [&](auto tag, const auto* values, std::int64_t size) -> AnyFull {
    py::gil_scoped_release release;
    return {program, FullSamples<decltype(tag)>(*program, runner, values, size, features, size)};
  });
}

py::tuple diagonal_of(std::shared_ptr<FullSchedule> program, const std::string& backend,
                      const py::array& x) {
  const Backend& runner = backend_named(backend);
  return with_samples(*program, x, [&](auto, const auto* values, std::int64_t size) -> py::tuple {
    const std::int64_t outputs = program->view().head.outputs, rows = 2 * program->view().head.size;
    const ImageDiagonal result = [&] {
      py::gil_scoped_release release;
      return full_diagonal(*program, runner, values, size);
    }();
    return py::make_tuple(py::array_t<double>({outputs, size}, result.nngp.data()),
                          py::array_t<double>({outputs, size}, result.ntk.data()),
                          py::array_t<double>({rows, size}, result.head.data()));
  });
}

template <class T>
Found evaluate_as(const Backend& backend, const Pairs<AnyFull>& pairs, ResultArrays& results,
                  bool diagonal) {
  // Checks.
  const FullProgram program = pairs.rows.program->view();
  const ImagesView<T> rows = std::get<FullSamples<T>>(pairs.rows.samples).view();
  const ImagesView<T> cols = std::get<FullSamples<T>>(pairs.cols.samples).view();
  const TileShape shape = shape_of(results.nngp, results.ntk);
  const Place place = pairs.place("evaluate", shape, rows.size, cols.size, 1);
  const bool square = pairs.row == pairs.col && shape.rows == shape.cols;
  require(!diagonal || square, "evaluate: not a diagonal tile");
  const ResultPointers<T> out(results, program.head.outputs, shape);
  // The engine, without the GIL.
  py::gil_scoped_release release;
  void* const workspace = kept_memory(backend.full_bytes(program));
  backend.in<T>().evaluate_full({place, out.view(), program, rows, cols, diagonal, workspace});
  if (stopped()) throw Stopped();  // the tile is not whole
  return out.not_finite(backend, diagonal);
}

Found evaluate_full(const std::string& backend, const Pairs<AnyFull>& pairs, ResultArrays results,
                    bool diagonal) {
  require(pairs.rows.program == pairs.cols.program,
          "evaluate: rows and columns belong to different programs");
  require(pairs.rows.samples.index() == pairs.cols.samples.index(),
          "evaluate: rows and columns differ in dtype");
  const auto call = pairs.rows.samples.index() == 0 ? evaluate_as<float> : evaluate_as<double>;
  return call(full_backend(backend), pairs, results, diagonal);
}

}  // namespace

void bind_full(py::module_& m) {
  py::class_<AnyFull, std::shared_ptr<AnyFull>>(
      m, "FullSamples", "What depends on one sample only; see csrc/samples/full.h.")
      .def(py::init(&samples_of), py::arg("program"), py::arg("backend"), py::arg("x"),
           py::arg("head") = py::none());
  m.def("image_diagonal", &diagonal_of, "The same by full covariances.", py::arg("program"),
        py::arg("backend"), py::arg("x"));
  m.def(
      "evaluate_images",
      [](const std::string& backend, const AnyFull& rows, std::int64_t row, const AnyFull& cols,
         std::int64_t col, const Arrays& nngp, const Arrays& ntk, const Arrays& nngp_mirror,
         const Arrays& ntk_mirror, bool diagonal) {
        return evaluate_full(backend, {rows, cols, row, col}, {nngp, ntk, nngp_mirror, ntk_mirror},
                             diagonal);
      },
      "The same by full covariances.", py::arg("backend"), py::arg("rows"), py::arg("row"),
      py::arg("cols"), py::arg("col"), py::arg("nngp"), py::arg("ntk"), py::arg("nngp_mirror"),
      py::arg("ntk_mirror"), py::arg("diagonal"));
}

}  // namespace ntk
