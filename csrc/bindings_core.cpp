// The CPU module: checks shapes, releases the GIL, calls. No arithmetic.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <variant>

#include "backend.h"

namespace py = pybind11;

namespace ntk {
namespace {

using OpTuple = std::tuple<std::string, std::string, int, int, std::array<double, 4>>;

const std::map<std::string, OpKind> kOpKinds = {{"affine", OpKind::affine}, {"dual", OpKind::dual},
                                                {"normalize", OpKind::normalize}, {"copy", OpKind::copy},
                                                {"add", OpKind::add}, {"emit", OpKind::emit}};

const std::map<std::string, Dual> kDuals = {
#define NTK_NAME(name, Phi) {#name, Dual::name},
    NTK_FOR_EACH_DUAL(NTK_NAME)
#undef NTK_NAME
};

template <class Map>
typename Map::mapped_type find(const Map& map, const std::string& name, const char* what) {
  const auto it = map.find(name);
  if (it == map.end()) throw py::value_error(std::string("unknown ") + what + " '" + name + "'");
  return it->second;
}

void require(bool ok, const char* message) {
  if (!ok) throw py::value_error(message);
}

// Owns the ops that a Program points to.
class OwnedProgram {
 public:
  OwnedProgram(const std::vector<OpTuple>& ops, int slots, int outputs) : slots_(slots), outputs_(outputs) {
    require(slots >= 1 && slots <= 4096, "a program has between 1 and 4096 slots");
    require(outputs >= 1 && outputs <= 65536, "a program has between 1 and 65536 outputs");
    for (const auto& [kind, dual, slot, other, params] : ops) {
      Op op{find(kOpKinds, kind, "op"), Dual::abrelu, slot, other, {params[0], params[1], params[2], params[3]}};
      if (op.kind == OpKind::dual) op.dual = find(kDuals, dual, "dual activation");
      require(slot >= 0 && slot < slots, "op: slot out of range");
      const bool two_slots = op.kind == OpKind::copy || op.kind == OpKind::add;
      require(!two_slots || (other >= 0 && other < slots), "op: second slot out of range");
      require(op.kind != OpKind::emit || (other >= 0 && other < outputs), "emit: output out of range");
      ops_.push_back(op);
    }
  }
  Program view() const { return {ops_.data(), int(ops_.size()), slots_, outputs_}; }

 private:
  std::vector<Op> ops_;
  int slots_, outputs_;
};

template <class T>
using Array = py::array_t<T, py::array::c_style>;

// The points of one data matrix in float32 or float64; keeps its program alive.
struct AnyPoints {
  std::shared_ptr<OwnedProgram> program;
  std::variant<Points<float>, Points<double>> points;
};

template <class T>
AnyPoints make_points(std::shared_ptr<OwnedProgram> program, const Array<T>& x) {
  require(x.ndim() == 2 && x.shape(0) > 0 && x.shape(1) > 0, "points: x must be a non-empty matrix");
  const T* data = x.data();
  const std::int64_t size = x.shape(0), width = x.shape(1);
  const Program view = program->view();
  py::gil_scoped_release release;
  return {std::move(program), Points<T>(view, data, size, width)};
}

AnyPoints points_of(std::shared_ptr<OwnedProgram> program, const py::array& x) {
  if (py::isinstance<Array<float>>(x)) return make_points<float>(std::move(program), Array<float>(x));
  if (py::isinstance<Array<double>>(x)) return make_points<double>(std::move(program), Array<double>(x));
  throw py::type_error("points: x must be a C-contiguous float32 or float64 matrix");
}

py::object unit_vectors(const py::object& self) {
  return std::visit(
      [&](const auto& p) -> py::object {
        using T = std::remove_const_t<std::remove_reference_t<decltype(*p.unit())>>;
        return py::array_t<T>({p.size(), p.width()}, p.unit(), self);
      },
      self.cast<const AnyPoints&>().points);
}

py::array_t<double> diagonal(const AnyPoints& self, bool ntk) {
  return std::visit(
      [&](const auto& p) {
        const auto view = p.view();
        const std::int64_t outputs = self.program->view().outputs;
        return py::array_t<double>({outputs, view.size}, ntk ? view.ntk : view.nngp);
      },
      self.points);
}

using Results = std::vector<std::optional<py::array>>;

// Checks one list of results of a tile and collects their pointers.
template <class T>
std::vector<T*> pointers(Results& results, const Program& program, std::int64_t rows, std::int64_t cols,
                         std::int64_t stride) {
  require(std::int64_t(results.size()) == program.outputs, "evaluate: one result (or None) per output is needed");
  std::vector<T*> out;
  for (auto& result : results) {
    if (!result) {
      out.push_back(nullptr);
      continue;
    }
    py::array& a = *result;
    require(py::isinstance<py::array_t<T>>(a), "evaluate: a result's dtype differs from the points'");
    require(a.ndim() == 2 && a.shape(0) == rows && a.shape(1) == cols, "evaluate: a result's shape is not the tile's");
    require(cols == 1 || a.strides(1) == std::int64_t(sizeof(T)), "evaluate: a result's rows are not contiguous");
    require(a.strides(0) == stride * std::int64_t(sizeof(T)) || rows == 1, "evaluate: results differ in row stride");
    out.push_back(static_cast<T*>(a.mutable_data()));  // raises where not writeable
  }
  return out;
}

template <class T>
void evaluate_as(const Backend& backend, const AnyPoints& rows, std::int64_t row, const AnyPoints& cols, std::int64_t col,
                 const Array<T>& dot, Results nngp, Results ntk, Results nngp_mirror, Results ntk_mirror, bool diagonal,
                 std::int64_t height, std::int64_t width, std::int64_t stride) {
  const Program program = rows.program->view();
  const PointsView<T> r = std::get<Points<T>>(rows.points).view(), c = std::get<Points<T>>(cols.points).view();
  require(r.width == c.width, "evaluate: the points differ in width");
  require(row >= 0 && height >= 1 && row <= r.size - height, "evaluate: rows out of range");
  require(col >= 0 && width >= 1 && col <= c.size - width && col % kStrip == 0, "evaluate: columns out of range");
  require(!diagonal || (&rows == &cols && row == col && height == width), "evaluate: not a diagonal tile");
  require(dot.ndim() == 2 && dot.shape(0) >= height && dot.shape(1) >= (width + kStrip - 1) / kStrip * kStrip,
          "evaluate: dot must hold the tile in whole strips");
  const auto out_nngp = pointers<T>(nngp, program, height, width, stride);
  const auto out_ntk = pointers<T>(ntk, program, height, width, stride);
  const auto mirror_nngp = pointers<T>(nngp_mirror, program, width, height, stride);
  const auto mirror_ntk = pointers<T>(ntk_mirror, program, width, height, stride);
  const T* products = dot.data();
  const std::int64_t dot_stride = dot.shape(1);
  py::gil_scoped_release release;
  std::vector<double> workspace(workspace_bytes(program) / sizeof(double) + 1);
  const Tile<T> tile{program,  r, c, row, height, col, width, products, dot_stride, out_nngp.data(), out_ntk.data(),
                     stride, mirror_nngp.data(), mirror_ntk.data(), diagonal, workspace.data()};
  if constexpr (std::is_same_v<T, float>) {
    backend.evaluate_float(tile);
  } else {
    backend.evaluate_double(tile);
  }
}

const Backend& backend_named(const std::string& name) {
  int count;
  const Backend* all = backends(&count);
  for (int i = 0; i < count; ++i)
    if (name == all[i].name) {
      if (all[i].missing) throw py::value_error("backend '" + name + "': " + all[i].missing);
      return all[i];
    }
  throw py::value_error("unknown backend '" + name + "'");
}

void evaluate(const std::string& backend, const AnyPoints& rows, std::int64_t row, const AnyPoints& cols,
              std::int64_t col, const py::array& dot, const Results& nngp, const Results& ntk, const Results& nngp_mirror,
              const Results& ntk_mirror, bool diagonal) {
  require(rows.program == cols.program, "evaluate: rows and columns belong to different programs");
  require(rows.points.index() == cols.points.index(), "evaluate: rows and columns differ in dtype");
  const py::array* first = nullptr;
  for (const Results* list : {&nngp, &ntk})
    for (const auto& result : *list)
      if (result && !first) first = &*result;
  require(first && first->ndim() == 2, "evaluate: no result is wanted");
  const std::int64_t stride = first->strides(0) / first->itemsize();
  const auto call = [&](auto tag) {
    using T = decltype(tag);
    require(py::isinstance<Array<T>>(dot), "evaluate: dot must be a C-contiguous matrix of the points' dtype");
    evaluate_as<T>(backend_named(backend), rows, row, cols, col, Array<T>(dot), nngp, ntk, nngp_mirror, ntk_mirror,
                   diagonal, first->shape(0), first->shape(1), stride);
  };
  rows.points.index() == 0 ? call(float{}) : call(double{});
}

std::vector<std::pair<std::string, std::optional<std::string>>> list_backends() {
  int count;
  const Backend* all = backends(&count);
  std::vector<std::pair<std::string, std::optional<std::string>>> out;
  for (int i = 0; i < count; ++i)
    out.emplace_back(all[i].name, all[i].missing ? std::optional<std::string>(all[i].missing) : std::nullopt);
  return out;
}

}  // namespace
}  // namespace ntk

PYBIND11_MODULE(_core, m) {
  using namespace ntk;
  m.doc() = "The CPU engine of ntkcore: programs, points, tiles.";
  m.attr("STRIP") = kStrip;
  m.def("backends", &list_backends, "Backends of this build, best first: (name, why it cannot run here or None).");
  m.def("duals", [] {
    std::vector<std::string> names;
    for (const auto& [name, dual] : kDuals) names.push_back(name);
    return names;
  }, "Names of the dual activations.");
  py::class_<OwnedProgram, std::shared_ptr<OwnedProgram>>(m, "Program", "Plain ops over slots; see csrc/program.h.")
      .def(py::init<const std::vector<OpTuple>&, int, int>(), py::arg("ops"), py::arg("slots"), py::arg("outputs"))
      .def_property_readonly("is_relu_chain", [](const OwnedProgram& p) { return is_relu_chain(p.view()); });
  py::class_<AnyPoints, std::shared_ptr<AnyPoints>>(m, "Points", "What depends on one point only; see csrc/points.h.")
      .def(py::init(&points_of), py::arg("program"), py::arg("x"))
      .def_property_readonly("unit", &unit_vectors)
      .def_property_readonly("nngp", [](const AnyPoints& p) { return diagonal(p, false); })
      .def_property_readonly("ntk", [](const AnyPoints& p) { return diagonal(p, true); });
  m.def("evaluate", &evaluate, "Evaluate the program on one tile of pairs; see csrc/backend.h.", py::arg("backend"),
        py::arg("rows"), py::arg("row"), py::arg("cols"), py::arg("col"), py::arg("dot"), py::arg("nngp"), py::arg("ntk"),
        py::arg("nngp_mirror"), py::arg("ntk_mirror"), py::arg("diagonal"));
}
