// Points, and tiles of pairs of them.
#include "vectors.h"

#include <type_traits>
#include <utility>
#include <vector>

#include "bind.h"
#include "results.h"

namespace ntk {
namespace {

// --- points

AnyVectors points_of(std::shared_ptr<OwnedProgram> program, const py::array& x) {
  const char* refusal = "points: x must be a C-contiguous float32 or float64 matrix";
  return with_precision(x, refusal, [&](const auto& matrix) -> AnyVectors {
    using T = typename std::decay_t<decltype(matrix)>::value_type;
    require(matrix.ndim() == 2 && matrix.size() > 0, "points: x must be a non-empty matrix");
    const T* data = matrix.data();
    const std::int64_t size = matrix.shape(0), width = matrix.shape(1);
    const Program view = program->view();
    py::gil_scoped_release release;
    return {program, Points<T>(view, data, size, width)};
  });
}

template <class T>
AnyVectors make_points_of_norms(std::shared_ptr<OwnedProgram> program, const Array<double>& norm2,
                                std::int64_t width, int threads) {
  require(norm2.ndim() == 1 && norm2.shape(0) > 0,
          "points: the squared norms must be a non-empty vector");
  require(width > 0 && threads > 0, "points: width and threads must be positive");
  const double* data = norm2.data();
  const std::int64_t size = norm2.shape(0);
  const Program view = program->view();
  py::gil_scoped_release release;
  return {std::move(program), Points<T>(view, data, size, width, threads)};
}

AnyVectors points_of_norms(std::shared_ptr<OwnedProgram> program, const Array<double>& norm2,
                           std::int64_t width, bool in_double, int threads) {
  const auto make = in_double ? make_points_of_norms<double> : make_points_of_norms<float>;
  return make(std::move(program), norm2, width, threads);
}

template <class T>
constexpr T element_of(const Points<T>&);

py::object unit_vectors(const py::object& self) {
  return std::visit(
      [&](const auto& p) -> py::object {
        using T = decltype(element_of(p));
        require(p.unit() != nullptr, "points: made without the data, so without unit vectors");
        return py::array_t<T>({p.size(), p.width()}, p.unit(), self);
      },
      self.cast<const AnyVectors&>().points);
}

py::array_t<double> diagonal(const AnyVectors& self, bool ntk) {
  return std::visit(
      [&](const auto& p) {
        const auto view = p.view();
        const std::int64_t outputs = self.program->view().outputs;
        return py::array_t<double>({outputs, view.size}, ntk ? view.ntk : view.nngp);
      },
      self.points);
}

// What a GPU needs of the points, not copied: root (stride,) and table (ops, 2, stride).
py::tuple point_arrays(const py::object& self) {
  const auto& any = self.cast<const AnyVectors&>();
  return std::visit(
      [&](const auto& p) -> py::tuple {
        using T = decltype(element_of(p));
        const auto view = p.view();
        const std::int64_t ops = any.program->view().size;
        return py::make_tuple(
            py::array_t<T>({view.stride}, view.root, self),
            py::array_t<T>({ops, std::int64_t(2), view.stride}, view.table, self));
      },
      any.points);
}

// --- tiles

template <class T>
Found evaluate_as(const Backend& backend, const Pairs<AnyVectors>& pairs, const Array<T>& dot,
                  ResultArrays& results, bool diagonal) {
  // Checks.
  const Program program = pairs.rows.program->view();
  const PointsView<T> rows = std::get<Points<T>>(pairs.rows.points).view();
  const PointsView<T> cols = std::get<Points<T>>(pairs.cols.points).view();
  const TileShape shape = shape_of(results.nngp, results.ntk);
  require(rows.width == cols.width, "evaluate: the points differ in width");
  const Place place = pairs.place("evaluate", shape, rows.size, cols.size, kStrip);
  const bool square =
      &pairs.rows == &pairs.cols && pairs.row == pairs.col && shape.rows == shape.cols;
  require(!diagonal || square, "evaluate: not a diagonal tile");
  const std::int64_t strips = (shape.cols + kStrip - 1) / kStrip;
  const bool whole =
      dot.ndim() == 2 && dot.shape(0) >= shape.rows && dot.shape(1) >= strips * kStrip;
  require(whole, "evaluate: dot must hold the tile in whole strips");
  const ResultPointers<T> out(results, program.outputs, shape);
  const T* products = dot.data();
  const std::int64_t dot_stride = dot.shape(1);
  // The engine, without the GIL.
  py::gil_scoped_release release;
  std::vector<double> workspace(workspace_bytes(program) / sizeof(double) + 1);
  const Tile<T> tile{place,      out.view(), program,         rows, cols, products,
                     dot_stride, diagonal,   workspace.data()};
  backend.in<T>().evaluate(tile);
  // A chain's state is a correlation: where the points' own kernels are finite, all are.
  if (is_relu_chain(program)) return std::nullopt;
  return out.not_finite(backend, false);
}

Found evaluate(const std::string& backend, const Pairs<AnyVectors>& pairs, const py::array& dot,
               ResultArrays results, bool diagonal) {
  require(pairs.rows.program == pairs.cols.program,
          "evaluate: rows and columns belong to different programs");
  require(pairs.rows.points.index() == pairs.cols.points.index(),
          "evaluate: rows and columns differ in dtype");
  const auto call = [&](auto tag) {
    using T = decltype(tag);
    const bool fits = py::isinstance<Array<T>>(dot);
    require(fits, "evaluate: dot must be a C-contiguous matrix of the points' dtype");
    return evaluate_as<T>(backend_named(backend), pairs, Array<T>(dot), results, diagonal);
  };
  return pairs.rows.points.index() == 0 ? call(float{}) : call(double{});
}

}  // namespace

void bind_vectors(py::module_& m) {
  m.attr("STRIP") = kStrip;
  py::class_<AnyVectors, std::shared_ptr<AnyVectors>>(
      m, "Vectors", "Points of one data matrix; see csrc/samples/points.h.")
      .def(py::init(&points_of), py::arg("program"), py::arg("x"))
      .def_static("of_norms", &points_of_norms, "Without the data: `unit` is not there.",
                  py::arg("program"), py::arg("norm2"), py::arg("width"), py::arg("in_double"),
                  py::arg("threads"))
      .def_property_readonly("unit", &unit_vectors)
      .def_property_readonly("arrays", &point_arrays)
      .def_property_readonly("nngp", [](const AnyVectors& p) { return diagonal(p, false); })
      .def_property_readonly("ntk", [](const AnyVectors& p) { return diagonal(p, true); });
  m.def(
      "evaluate",
      [](const std::string& backend, const AnyVectors& rows, std::int64_t row,
         const AnyVectors& cols, std::int64_t col, const py::array& dot, const Arrays& nngp,
         const Arrays& ntk, const Arrays& nngp_mirror, const Arrays& ntk_mirror, bool diagonal) {
        return evaluate(backend, {rows, cols, row, col}, dot, {nngp, ntk, nngp_mirror, ntk_mirror},
                        diagonal);
      },
      "Evaluate the program on one tile of pairs; see csrc/backend.h. Returns (row, column) of a "
      "result that is not "
      "finite, or None.",
      py::arg("backend"), py::arg("rows"), py::arg("row"), py::arg("cols"), py::arg("col"),
      py::arg("dot"), py::arg("nngp"), py::arg("ntk"), py::arg("nngp_mirror"),
      py::arg("ntk_mirror"), py::arg("diagonal"));
}

}  // namespace ntk
