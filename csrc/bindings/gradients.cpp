// Derivatives of a kernel on tiles of pairs of points.
#include <algorithm>
#include <array>
#include <memory>
#include <tuple>
#include <utility>
#include <vector>

#include "../samples/slopes.h"
#include "../scratch.h"
#include "bind.h"
#include "results.h"
#include "vectors.h"

namespace ntk {
namespace {

// What the points of a data matrix in float64 hand to the gradient; keeps them alive.
struct VectorSlopes {
  std::shared_ptr<AnyVectors> points;
  Slopes slopes;
  SlopesView view() const {
    return {std::get<Points<double>>(points->points).view(), slopes.table()};
  }
};

VectorSlopes slopes_of(std::shared_ptr<AnyVectors> points) {
  require(points->points.index() == 1, "slopes: the points must be in float64");
  const Program program = points->program->view();
  const PointsView<double> view = std::get<Points<double>>(points->points).view();
  require(view.unit != nullptr, "slopes: the points were made without their data");
  py::gil_scoped_release release;
  return {std::move(points), Slopes(program, view)};
}

// op, result, slopes.
using KnobTuple = std::tuple<int, int, std::array<double, 4>>;

std::vector<Knob> checked_knobs(const std::vector<KnobTuple>& from, int ops, std::int64_t results) {
  std::vector<Knob> knobs;
  for (const auto& [op, result, slope] : from) {
    require(op >= 0 && op < ops, "gradient: a knob's op is out of range");
    require(result >= 0 && result < results - 3, "gradient: a knob's result is out of range");
    knobs.push_back({op, result, {slope[0], slope[1], slope[2], slope[3]}});
  }
  std::stable_sort(knobs.begin(), knobs.end(),
                   [](const Knob& a, const Knob& b) { return a.op < b.op; });
  return knobs;
}

void gradient(const std::string& backend, const Pairs<VectorSlopes>& pairs, const py::array& dot,
              bool ntk, const std::vector<KnobTuple>& knobs, Arrays results) {
  // Checks.
  const bool same = pairs.rows.points->program == pairs.cols.points->program;
  require(same, "gradient: rows and columns belong to different programs");
  require(py::isinstance<Array<double>>(dot) && dot.ndim() == 2,
          "gradient: dot must be a C-contiguous float64 matrix");
  require(results.size() >= 3 && results.size() <= 65536,
          "gradient: between 3 and 65536 results are needed");
  const TileShape shape = shape_of(results);
  const SlopesView rows = pairs.rows.view(), cols = pairs.cols.view();
  require(rows.points.width == cols.points.width, "gradient: the points differ in width");
  GradientTile tile{};
  static_cast<Place&>(tile) =
      pairs.place("gradient", shape, rows.points.size, cols.points.size, kStrip);
  require(dot.shape(0) >= shape.rows && dot.shape(1) >= shape.cols,
          "gradient: dot is smaller than the tile");
  // The tile.
  tile.program = pairs.rows.points->program->view();
  tile.row_points = rows;
  tile.col_points = cols;
  tile.results = int(results.size());
  const std::vector<Knob> checked = checked_knobs(knobs, tile.program.size, tile.results);
  tile.knobs = checked.data();
  tile.knob_count = int(checked.size());
  const auto out = pointers<double>(results, tile.results, shape);
  tile.out = out.data();
  tile.stride = shape.stride;
  tile.dot = Array<double>(dot).data();
  tile.dot_stride = dot.shape(1);
  tile.ntk = ntk;
  // The engine, without the GIL.
  const Backend& chosen = backend_named(backend);
  py::gil_scoped_release release;
  const AlignedMemory workspace(gradient_bytes(tile.program, tile.results));
  tile.workspace = workspace.get();
  chosen.gradient(tile);
}

}  // namespace

void bind_gradients(py::module_& m) {
  py::class_<VectorSlopes>(
      m, "VectorSlopes", "What the gradient needs of points in float64; see csrc/samples/slopes.h.")
      .def(py::init(&slopes_of), py::arg("points"));
  m.def(
      "gradient",
      [](const std::string& backend, const VectorSlopes& rows, std::int64_t row,
         const VectorSlopes& cols, std::int64_t col, const py::array& dot, bool ntk,
         const std::vector<KnobTuple>& knobs, const Arrays& results) {
        gradient(backend, {rows, cols, row, col}, dot, ntk, knobs, results);
      },
      "Derivatives on one tile of pairs; see csrc/backend.h.", py::arg("backend"), py::arg("rows"),
      py::arg("row"), py::arg("cols"), py::arg("col"), py::arg("dot"), py::arg("ntk"),
      py::arg("knobs"), py::arg("results"));
}

}  // namespace ntk
