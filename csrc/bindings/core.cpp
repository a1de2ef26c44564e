// The CPU module: checks shapes, releases the GIL, calls. No arithmetic.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <variant>

#include "../cuda/emulation.h"
#include "../program/owned_program.h"
#include "../samples/images.h"
#include "../samples/points.h"
#include "../samples/slopes.h"
#include "../stop.h"
#include "device.h"
#include "finite.h"

namespace py = pybind11;

namespace ntk {
namespace {

using OpTuple = std::tuple<std::string, std::string, int, int, std::array<double, 4>>;

const std::map<std::string, OpKind> kOpKinds = {
    {"affine", OpKind::affine}, {"dual", OpKind::dual}, {"normalize", OpKind::normalize},
    {"copy", OpKind::copy},     {"add", OpKind::add},   {"emit", OpKind::emit}};

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

std::vector<Op> checked_ops(const std::vector<OpTuple>& ops, int slots, int outputs) {
  require(slots >= 1 && slots <= 4096, "a program has between 1 and 4096 slots");
  require(outputs >= 1 && outputs <= 65536, "a program has between 1 and 65536 outputs");
  std::vector<Op> checked;
  for (const auto& [kind, dual, slot, other, params] : ops) {
    Op op{find(kOpKinds, kind, "op"), Dual::abrelu, slot, other, {params[0], params[1], params[2], params[3]}};
    if (op.kind == OpKind::dual) op.dual = find(kDuals, dual, "dual activation");
    require(slot >= 0 && slot < slots, "op: slot out of range");
    const bool two_slots = op.kind == OpKind::copy || op.kind == OpKind::add;
    require(!two_slots || (other >= 0 && other < slots), "op: second slot out of range");
    require(op.kind != OpKind::emit || (other >= 0 && other < outputs), "emit: output out of range");
    checked.push_back(op);
  }
  return checked;
}

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

template <class T>
AnyPoints make_points_of_norms(std::shared_ptr<OwnedProgram> program, const Array<double>& norm2, std::int64_t width,
                               int threads) {
  require(norm2.ndim() == 1 && norm2.shape(0) > 0, "points: the squared norms must be a non-empty vector");
  require(width > 0 && threads > 0, "points: width and threads must be positive");
  const double* data = norm2.data();
  const std::int64_t size = norm2.shape(0);
  const Program view = program->view();
  py::gil_scoped_release release;
  return {std::move(program), Points<T>(view, data, size, width, threads)};
}

AnyPoints points_of_norms(std::shared_ptr<OwnedProgram> program, const Array<double>& norm2, std::int64_t width,
                          bool in_double, int threads) {
  const auto make = in_double ? make_points_of_norms<double> : make_points_of_norms<float>;
  return make(std::move(program), norm2, width, threads);
}

py::object unit_vectors(const py::object& self) {
  return std::visit(
      [&](const auto& p) -> py::object {
        using T = std::remove_const_t<std::remove_reference_t<decltype(*p.unit())>>;
        require(p.unit() != nullptr, "points: made without the data, so without unit vectors");
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

// What a GPU needs of the points, not copied: root (stride,) and table (ops, 2, stride).
py::tuple point_arrays(const py::object& self) {
  const auto& any = self.cast<const AnyPoints&>();
  return std::visit(
      [&](const auto& p) -> py::tuple {
        using T = std::remove_const_t<std::remove_reference_t<decltype(*p.unit())>>;
        const auto view = p.view();
        const std::int64_t ops = any.program->view().size;
        return py::make_tuple(py::array_t<T>({view.stride}, view.root, self),
                              py::array_t<T>({ops, std::int64_t(2), view.stride}, view.table, self));
      },
      any.points);
}

using Results = std::vector<std::optional<py::array>>;
using Found = std::optional<std::pair<std::int64_t, std::int64_t>>;

// Row and column, in the tile, of a kernel's value that is not finite.
template <class T>
Found not_finite(const Backend& backend, const std::vector<T*>& nngp, const std::vector<T*>& ntk, std::int64_t rows,
                 std::int64_t cols, std::int64_t stride, bool upper) {
  bool (*look)(const T*, std::int64_t);
  if constexpr (std::is_same_v<T, float>) {
    look = backend.finite_float;
  } else {
    look = backend.finite_double;
  }
  const Found found = find_not_finite(look, nngp.data(), int(nngp.size()), rows, cols, stride, upper);
  return found ? found : find_not_finite(look, ntk.data(), int(ntk.size()), rows, cols, stride, upper);
}

// Checks one list of results of a tile and collects their pointers.
template <class T>
std::vector<T*> pointers(Results& results, int outputs, std::int64_t rows, std::int64_t cols, std::int64_t stride) {
  require(std::int64_t(results.size()) == outputs, "evaluate: one result (or None) per output is needed");
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
Found evaluate_as(const Backend& backend, const AnyPoints& rows, std::int64_t row, const AnyPoints& cols,
                  std::int64_t col, const Array<T>& dot, Results nngp, Results ntk, Results nngp_mirror,
                  Results ntk_mirror, bool diagonal, std::int64_t height, std::int64_t width, std::int64_t stride) {
  const Program program = rows.program->view();
  const PointsView<T> r = std::get<Points<T>>(rows.points).view(), c = std::get<Points<T>>(cols.points).view();
  require(r.width == c.width, "evaluate: the points differ in width");
  require(row >= 0 && height >= 1 && row <= r.size - height, "evaluate: rows out of range");
  require(col >= 0 && width >= 1 && col <= c.size - width && col % kStrip == 0, "evaluate: columns out of range");
  require(!diagonal || (&rows == &cols && row == col && height == width), "evaluate: not a diagonal tile");
  require(dot.ndim() == 2 && dot.shape(0) >= height && dot.shape(1) >= (width + kStrip - 1) / kStrip * kStrip,
          "evaluate: dot must hold the tile in whole strips");
  const auto out_nngp = pointers<T>(nngp, program.outputs, height, width, stride);
  const auto out_ntk = pointers<T>(ntk, program.outputs, height, width, stride);
  const auto mirror_nngp = pointers<T>(nngp_mirror, program.outputs, width, height, stride);
  const auto mirror_ntk = pointers<T>(ntk_mirror, program.outputs, width, height, stride);
  const T* products = dot.data();
  const std::int64_t dot_stride = dot.shape(1);
  py::gil_scoped_release release;
  std::vector<double> workspace(workspace_bytes(program) / sizeof(double) + 1);
  const Tile<T> tile{program,
                     r,
                     c,
                     row,
                     height,
                     col,
                     width,
                     products,
                     dot_stride,
                     out_nngp.data(),
                     out_ntk.data(),
                     stride,
                     mirror_nngp.data(),
                     mirror_ntk.data(),
                     diagonal,
                     workspace.data()};
  if constexpr (std::is_same_v<T, float>) {
    backend.evaluate_float(tile);
  } else {
    backend.evaluate_double(tile);
  }
  // A chain's state is a correlation: where the points' own kernels are finite, all are.
  if (is_relu_chain(program)) return std::nullopt;
  return not_finite(backend, out_nngp, out_ntk, height, width, stride, false);
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

// The least and largest of a float32 matrix whose rows are contiguous.
std::pair<float, float> extremes(const std::string& backend, const py::array& data) {
  require(py::isinstance<py::array_t<float>>(data) && data.ndim() == 2 && data.size() > 0 &&
              data.strides(1) == std::int64_t(sizeof(float)) && data.strides(0) % std::int64_t(sizeof(float)) == 0,
          "extremes: data must be a float32 matrix with contiguous rows, not empty");
  const Extremes found = backend_named(backend).extremes(static_cast<const float*>(data.data()), data.shape(0),
                                                         data.shape(1), data.strides(0) / std::int64_t(sizeof(float)));
  return {found.low, found.high};
}

// The first result that is wanted: its shape is the tile's.
const py::array& first_result(const Results& nngp, const Results& ntk) {
  for (const Results* list : {&nngp, &ntk})
    for (const auto& result : *list)
      if (result) {
        require(result->ndim() == 2, "evaluate: a result must be a matrix");
        return *result;
      }
  throw py::value_error("evaluate: no result is wanted");
}

Found evaluate(const std::string& backend, const AnyPoints& rows, std::int64_t row, const AnyPoints& cols,
               std::int64_t col, const py::array& dot, const Results& nngp, const Results& ntk,
               const Results& nngp_mirror, const Results& ntk_mirror, bool diagonal) {
  require(rows.program == cols.program, "evaluate: rows and columns belong to different programs");
  require(rows.points.index() == cols.points.index(), "evaluate: rows and columns differ in dtype");
  const py::array& first = first_result(nngp, ntk);
  const std::int64_t stride = first.strides(0) / first.itemsize();
  const auto call = [&](auto tag) {
    using T = decltype(tag);
    require(py::isinstance<Array<T>>(dot), "evaluate: dot must be a C-contiguous matrix of the points' dtype");
    return evaluate_as<T>(backend_named(backend), rows, row, cols, col, Array<T>(dot), nngp, ntk, nngp_mirror,
                          ntk_mirror, diagonal, first.shape(0), first.shape(1), stride);
  };
  return rows.points.index() == 0 ? call(float{}) : call(double{});
}

// What the points of a data matrix in float64 hand to the gradient; keeps them alive.
struct PointSlopes {
  std::shared_ptr<AnyPoints> points;
  Slopes slopes;
  SlopesView view() const { return {std::get<Points<double>>(points->points).view(), slopes.table()}; }
};

PointSlopes slopes_of(std::shared_ptr<AnyPoints> points) {
  require(points->points.index() == 1, "slopes: the points must be in float64");
  const Program program = points->program->view();
  const PointsView<double> view = std::get<Points<double>>(points->points).view();
  py::gil_scoped_release release;
  return {std::move(points), Slopes(program, view)};
}

// Numbers of the ops with constants that a dense layer gave.
std::vector<int> dense_ops(const OwnedProgram& owned) {
  const Program program = owned.view();
  std::vector<int> numbers;
  for (int i = 0; i < program.size; ++i)
    if (program.ops[i].kind == OpKind::affine || program.ops[i].kind == OpKind::emit) numbers.push_back(i);
  return numbers;
}

using KnobTuple = std::tuple<int, int, std::array<double, 4>>;

std::vector<Knob> checked_knobs(const std::vector<KnobTuple>& from, int ops, std::int64_t results) {
  std::vector<Knob> knobs;
  for (const auto& [op, result, slope] : from) {
    require(op >= 0 && op < ops, "gradient: a knob's op is out of range");
    require(result >= 0 && result < results - 3, "gradient: a knob's result is out of range");
    knobs.push_back({op, result, {slope[0], slope[1], slope[2], slope[3]}});
  }
  std::stable_sort(knobs.begin(), knobs.end(), [](const Knob& a, const Knob& b) { return a.op < b.op; });
  return knobs;
}

void gradient(const std::string& backend, const PointSlopes& rows, std::int64_t row, const PointSlopes& cols,
              std::int64_t col, const py::array& dot, bool ntk, const std::vector<KnobTuple>& knobs, Results results) {
  require(rows.points->program == cols.points->program, "gradient: rows and columns belong to different programs");
  require(py::isinstance<Array<double>>(dot) && dot.ndim() == 2, "gradient: dot must be a C-contiguous float64 matrix");
  require(results.size() >= 3 && results.size() <= 65536, "gradient: between 3 and 65536 results are needed");
  const py::array first = first_result(results, {});
  const std::int64_t height = first.shape(0), width = first.shape(1), stride = first.strides(0) / first.itemsize();
  const Program program = rows.points->program->view();
  const SlopesView r = rows.view(), c = cols.view();
  require(r.points.width == c.points.width, "gradient: the points differ in width");
  require(row >= 0 && height >= 1 && row <= r.points.size - height, "gradient: rows out of range");
  require(col >= 0 && width >= 1 && col <= c.points.size - width && col % kStrip == 0,
          "gradient: columns out of range");
  require(dot.shape(0) >= height && dot.shape(1) >= width, "gradient: dot is smaller than the tile");
  const int count = int(results.size());
  const auto checked = checked_knobs(knobs, program.size, count);
  const auto out = pointers<double>(results, count, height, width, stride);
  const Backend& executor = backend_named(backend);
  const double* products = Array<double>(dot).data();
  const std::int64_t dot_stride = dot.shape(1);
  py::gil_scoped_release release;
  const std::unique_ptr<void, AlignedFree> workspace(
      ::operator new(gradient_bytes(program, count), std::align_val_t(64)));
  executor.gradient({program, checked.data(), int(checked.size()), count, r, c, row, height, col, width, products,
                     dot_stride, ntk, out.data(), stride, workspace.get()});
}

const std::map<std::string, PlaneOpKind> kPlaneOpKinds = {
    {"conv", PlaneOpKind::conv},      {"dual", PlaneOpKind::dual}, {"normalize", PlaneOpKind::normalize},
    {"copy", PlaneOpKind::copy},      {"add", PlaneOpKind::add},   {"pool", PlaneOpKind::pool},
    {"readout", PlaneOpKind::readout}};

// kind, dual, slot, other, parameters, (h, w, out_h, out_w, window_h, window_w, stride_h, stride_w, low_h, low_w,
// circular, normalize_edges).
using PlaneOpTuple = std::tuple<std::string, std::string, int, int, std::array<double, 4>, std::array<int, 12>>;
using ImageShape = std::array<int, 3>;

PlaneOp plane_op(const PlaneOpTuple& from) {
  const auto& [kind, dual, slot, other, p, g] = from;
  PlaneOp op{find(kPlaneOpKinds, kind, "plane op"),
             Dual::abrelu,
             slot,
             other,
             {p[0], p[1], p[2], p[3]},
             g[0],
             g[1],
             g[2],
             g[3],
             g[4],
             g[5],
             g[6],
             g[7],
             g[8],
             g[9],
             g[10],
             g[11],
             FastPath::none};
  if (op.kind == PlaneOpKind::dual) op.dual = find(kDuals, dual, "dual activation");
  return op;
}

// Follows the image size of every slot; an op that does not fit raises, so that the executor may trust all of them.
std::vector<PlaneOp> checked_plane_ops(const std::vector<PlaneOpTuple>& ops, int slots, int head_slots,
                                       ImageShape shape) {
  constexpr int kLargest = 1024;
  const auto size_ok = [](int n) { return n >= 1 && n <= kLargest; };
  require(slots >= 1 && slots <= 64, "an image program has between 1 and 64 slots");
  require(size_ok(shape[0]) && size_ok(shape[1]) && shape[2] >= 1, "images must be 1 to 1024 pixels high and wide");
  std::vector<std::pair<int, int>> size(slots, {0, 0});
  size[0] = {shape[0], shape[1]};
  Strides stride(slots);
  std::pair<int, int> start = size[0], period{0, 0};  // of the segment: its image, and where circular padding wraps
  const auto wraps = [](int n, int stride, int start, int& period) {
    if (n == 1) return true;
    const bool fits = n * stride >= start && n * stride < 2 * start && (period == 0 || period == n * stride);
    period = n * stride;
    return fits;
  };
  const auto same_stride = [&](const PlaneOp& op) {  // a side of one pixel has displacement 0, whatever the stride
    const auto one = stride.of(op.slot), other = stride.of(op.other);
    return (op.h == 1 || one.first == other.first) && (op.w == 1 || one.second == other.second);
  };
  std::vector<PlaneOp> checked;
  int pools = 0;
  for (const auto& from : ops) {
    const PlaneOp op = plane_op(from);
    require(op.slot >= 0 && op.slot < slots, "plane op: slot out of range");
    const bool two_slots = op.kind == PlaneOpKind::copy || op.kind == PlaneOpKind::add;
    require(!two_slots || (op.other >= 0 && op.other < slots && op.other != op.slot),
            "plane op: second slot out of range");
    if (op.kind == PlaneOpKind::copy) size[op.slot] = size[op.other];
    require(size[op.slot] == std::pair(op.h, op.w), "plane op: image size differs from its slot's");
    require(op.kind != PlaneOpKind::add || (size[op.slot] == size[op.other] && same_stride(op)),
            "add: image sizes or strides differ");
    if (op.kind == PlaneOpKind::conv || op.kind == PlaneOpKind::pool) {
      require(size_ok(op.out_h) && size_ok(op.out_w), "plane op: output size out of range");
      require(size_ok(op.window_h) && size_ok(op.window_w) && size_ok(op.stride_h) && size_ok(op.stride_w),
              "plane op: window or stride out of range");
      require(op.low_h >= 0 && op.low_h < op.window_h && op.low_w >= 0 && op.low_w < op.window_w,
              "plane op: padding out of range");
      size[op.slot] = {op.out_h, op.out_w};
    }
    if (op.kind == PlaneOpKind::conv && op.circular)
      require(wraps(op.h, stride.of(op.slot).first, start.first, period.first) &&
                  wraps(op.w, stride.of(op.slot).second, start.second, period.second),
              "conv: circular padding at sizes that do not go together");
    stride.follow(op);
    if (op.kind == PlaneOpKind::pool) {
      require(op.slot == 0 && ++pools < 16, "pool: slot 0 only, at most 15 pools");
      for (int s = 1; s < slots; ++s) size[s] = {0, 0};
      start = size[0], period = {0, 0};
    }
    if (op.kind == PlaneOpKind::readout) {
      require(op.other >= 0 && op.other < head_slots, "readout: head slot out of range");
      require(op.window_h >= -1 && op.window_h <= kLargest && op.window_w >= -1 && op.window_w <= kLargest,
              "readout: window out of range");
    }
    checked.push_back(op);
  }
  return checked;
}

std::shared_ptr<PlaneSchedule> make_schedule(const std::vector<PlaneOpTuple>& ops, int slots,
                                             const std::vector<OpTuple>& head, int head_slots, int outputs,
                                             ImageShape shape) {
  return std::make_shared<PlaneSchedule>(checked_plane_ops(ops, slots, head_slots, shape), slots,
                                         checked_ops(head, head_slots, outputs), head_slots, outputs, shape[0],
                                         shape[1], shape[2]);
}

// A block of images in float32 or float64; keeps its program alive.
struct AnyImages {
  std::shared_ptr<PlaneSchedule> program;
  std::variant<Images<float>, Images<double>> images;
};

template <class T>
void require_images(const PlaneSchedule& schedule, const Array<T>& x) {
  const PlaneProgram program = schedule.view();
  require(x.ndim() == 4 && x.shape(0) > 0 && x.shape(1) == program.h && x.shape(2) == program.w &&
              x.shape(3) == program.channels,
          "images: x does not have the program's shape");
}

// Calls f with x as an array of float or of double.
template <class F>
auto with_images(const py::array& x, F&& f) {
  if (py::isinstance<Array<float>>(x)) return f(Array<float>(x));
  if (py::isinstance<Array<double>>(x)) return f(Array<double>(x));
  throw py::type_error("images: x must be a C-contiguous float32 or float64 array");
}

AnyImages images_of(std::shared_ptr<PlaneSchedule> program, const std::string& backend, const py::array& x,
                    const std::optional<Array<double>>& head) {
  const Backend& runner = backend_named(backend);
  const std::int64_t head_rows = 2 * program->view().head.size;
  require(head || !program->head_needs_variance(), "images: the head needs the variances of image_diagonal");
  require(!head || (head->ndim() == 2 && head->shape(0) == head_rows && head->shape(1) == x.shape(0)),
          "images: head must have shape (2 ops, images)");
  const double* features = head ? head->data() : nullptr;
  return with_images(x, [&](const auto& data) -> AnyImages {
    using T = typename std::remove_reference_t<decltype(data)>::value_type;
    require_images<T>(*program, data);
    const std::int64_t size = data.shape(0);
    const T* pixels = data.data();
    py::gil_scoped_release release;
    return {program, Images<T>(*program, runner, pixels, size, features, size)};
  });
}

// Writes what a GPU needs of images x into the caller's arrays: pixels and tables, (strips, numbers).
void write_image_strips(std::shared_ptr<PlaneSchedule> program, const std::string& backend, const py::array& x,
                        py::array pixels, py::array table) {
  const Backend& runner = backend_named(backend);
  with_images(x, [&](const auto& data) {
    using T = typename std::remove_reference_t<decltype(data)>::value_type;
    require_images<T>(*program, data);
    constexpr std::int64_t N = kImageLanes<T>;
    const std::int64_t size = data.shape(0), strips = (size + N - 1) / N;
    const std::int64_t width = data.size() / size;
    const auto fits = [&](const py::array& array, std::int64_t numbers) {
      return py::isinstance<Array<T>>(array) && array.ndim() == 2 && array.shape(0) == strips &&
             array.shape(1) == numbers * N;
    };
    require(fits(pixels, width) && fits(table, program->table_size()), "images: strips of a wrong shape or dtype");
    const T* images = data.data();
    T* const to_pixels = static_cast<T*>(pixels.mutable_data());
    T* const to_table = static_cast<T*>(table.mutable_data());
    py::gil_scoped_release release;
    image_strips<T>(*program, runner, images, size, to_pixels, to_table);
  });
}

py::tuple image_diagonal_of(std::shared_ptr<PlaneSchedule> program, const std::string& backend, const py::array& x) {
  const Backend& runner = backend_named(backend);
  return with_images(x, [&](const auto& data) -> py::tuple {
    using T = typename std::remove_reference_t<decltype(data)>::value_type;
    require_images<T>(*program, data);
    const std::int64_t size = data.shape(0), outputs = program->view().head.outputs,
                       rows = 2 * program->view().head.size;
    const T* pixels = data.data();
    const ImageDiagonal result = [&] {
      py::gil_scoped_release release;
      return image_diagonal<T>(*program, runner, pixels, size);
    }();
    return py::make_tuple(py::array_t<double>({outputs, size}, result.nngp.data()),
                          py::array_t<double>({outputs, size}, result.ntk.data()),
                          py::array_t<double>({rows, size}, result.head.data()));
  });
}

template <class T>
Found evaluate_images_as(const Backend& backend, const AnyImages& rows, std::int64_t row, const AnyImages& cols,
                         std::int64_t col, Results nngp, Results ntk, Results nngp_mirror, Results ntk_mirror,
                         bool diagonal) {
  const PlaneProgram program = rows.program->view();
  const ImagesView<T> r = std::get<Images<T>>(rows.images).view(), c = std::get<Images<T>>(cols.images).view();
  const py::array& first = first_result(nngp, ntk);
  const std::int64_t height = first.shape(0), width = first.shape(1), stride = first.strides(0) / first.itemsize();
  require(row >= 0 && height >= 1 && row <= r.size - height, "evaluate: rows out of range");
  require(col >= 0 && width >= 1 && col <= c.size - width && col % kImageLanes<T> == 0,
          "evaluate: columns out of range");
  require(!diagonal || (row == col && height == width), "evaluate: not a diagonal tile");
  const int outputs = program.head.outputs;
  const auto out_nngp = pointers<T>(nngp, outputs, height, width, stride);
  const auto out_ntk = pointers<T>(ntk, outputs, height, width, stride);
  const auto mirror_nngp = pointers<T>(nngp_mirror, outputs, width, height, stride);
  const auto mirror_ntk = pointers<T>(ntk_mirror, outputs, width, height, stride);
  py::gil_scoped_release release;
  const std::unique_ptr<void, AlignedFree> workspace(
      ::operator new(backend.image_bytes(program), std::align_val_t(64)));
  const ImageTile<T> tile{program,
                          r,
                          c,
                          row,
                          height,
                          col,
                          width,
                          out_nngp.data(),
                          out_ntk.data(),
                          stride,
                          mirror_nngp.data(),
                          mirror_ntk.data(),
                          diagonal,
                          workspace.get()};
  if constexpr (std::is_same_v<T, float>) {
    backend.images_float(tile);
  } else {
    backend.images_double(tile);
  }
  if (stopped()) throw Stopped();  // the tile is not whole
  return not_finite(backend, out_nngp, out_ntk, height, width, stride, diagonal);
}

Found evaluate_images(const std::string& backend, const AnyImages& rows, std::int64_t row, const AnyImages& cols,
                      std::int64_t col, const Results& nngp, const Results& ntk, const Results& nngp_mirror,
                      const Results& ntk_mirror, bool diagonal) {
  require(rows.program == cols.program, "evaluate: rows and columns belong to different programs");
  require(rows.images.index() == cols.images.index(), "evaluate: rows and columns differ in dtype");
  const auto call = rows.images.index() == 0 ? evaluate_images_as<float> : evaluate_images_as<double>;
  return call(backend_named(backend), rows, row, cols, col, nngp, ntk, nngp_mirror, ntk_mirror, diagonal);
}

// A flag that ends the engine's calls in every thread that obeys it.
class Stop {
 public:
  void set() { __atomic_store_n(&flag_, true, __ATOMIC_RELAXED); }
  bool is_set() const { return __atomic_load_n(&flag_, __ATOMIC_RELAXED); }
  const bool* flag() const { return &flag_; }

 private:
  bool flag_ = false;
};

// A thread that waits for SIGINT's number at the read end of Python's wakeup pipe, then ends the process in so many
// seconds, whoever holds the GIL.
void leave_after_interrupt(int pipe, double seconds, std::string line) {
  std::thread([=] {
    for (unsigned char signal = 0; ::read(pipe, &signal, 1) == 1;) {
      if (signal != SIGINT) continue;
      std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
      const auto told = ::write(STDERR_FILENO, line.data(), line.size());
      static_cast<void>(told);
      std::_Exit(130);
    }
  }).detach();
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

// Calls share no state but what callers hand to them, so they need no GIL.
PYBIND11_MODULE(_core_of_main_interpreter, m, py::mod_gil_not_used(), py::multiple_interpreters::not_supported()) {
  using namespace ntk;
  m.doc() = "The CPU engine of ntkcore: programs, points, tiles.";
  m.attr("STRIP") = kStrip;
  m.def("backends", &list_backends, "Backends of this build, best first: (name, why it cannot run here or None).");
  py::register_exception<Stopped>(m, "StoppedError", PyExc_RuntimeError);
  py::class_<Stop>(m, "Stop", "Ends the engine's calls in the threads that obey it; see csrc/stop.h.")
      .def(py::init<>())
      .def("set", &Stop::set)
      .def("is_set", &Stop::is_set);
  m.def(
      "obey", [](const Stop* stop) { stop_flag = stop ? stop->flag() : nullptr; },
      "The calling thread's Stop, which must outlive it there; None: nobody ends its calls.",
      py::arg("stop").none(true));
  m.def("leave_after_interrupt", &leave_after_interrupt,
        "Ends the process some seconds after SIGINT, whoever holds the GIL.", py::arg("pipe"), py::arg("seconds"),
        py::arg("line"));
  m.def(
      "duals",
      [] {
        std::vector<std::string> names;
        for (const auto& [name, dual] : kDuals) names.push_back(name);
        return names;
      },
      "Names of the dual activations.");
  py::class_<OwnedProgram, std::shared_ptr<OwnedProgram>>(m, "Program",
                                                          "Plain ops over slots; see csrc/program/program.h.")
      .def(py::init([](const std::vector<OpTuple>& ops, int slots, int outputs) {
             return std::make_shared<OwnedProgram>(checked_ops(ops, slots, outputs), slots, outputs);
           }),
           py::arg("ops"), py::arg("slots"), py::arg("outputs"))
      .def_property_readonly("is_relu_chain", [](const OwnedProgram& p) { return is_relu_chain(p.view()); })
      .def_property_readonly("dense_ops", &dense_ops);
  py::class_<AnyPoints, std::shared_ptr<AnyPoints>>(m, "Points",
                                                    "What depends on one point only; see csrc/samples/points.h.")
      .def(py::init(&points_of), py::arg("program"), py::arg("x"))
      .def_static("of_norms", &points_of_norms, "Without the data: `unit` is not there.", py::arg("program"),
                  py::arg("norm2"), py::arg("width"), py::arg("in_double"), py::arg("threads"))
      .def_property_readonly("unit", &unit_vectors)
      .def_property_readonly("arrays", &point_arrays)
      .def_property_readonly("nngp", [](const AnyPoints& p) { return diagonal(p, false); })
      .def_property_readonly("ntk", [](const AnyPoints& p) { return diagonal(p, true); });
  py::class_<PointSlopes>(m, "PointSlopes", "What the gradient needs of points in float64; see csrc/samples/slopes.h.")
      .def(py::init(&slopes_of), py::arg("points"));
  m.def("gradient", &gradient, "Derivatives on one tile of pairs; see csrc/backend.h.", py::arg("backend"),
        py::arg("rows"), py::arg("row"), py::arg("cols"), py::arg("col"), py::arg("dot"), py::arg("ntk"),
        py::arg("knobs"), py::arg("results"));
  py::class_<PlaneSchedule, std::shared_ptr<PlaneSchedule>>(
      m, "ImageProgram", "Plane ops, read-outs and a head; see csrc/program/plane_program.h.")
      .def(py::init(&make_schedule), py::arg("ops"), py::arg("slots"), py::arg("head"), py::arg("head_slots"),
           py::arg("outputs"), py::arg("shape"))
      .def_property_readonly("head_needs_variance", &PlaneSchedule::head_needs_variance)
      .def_property_readonly("homogeneous", &PlaneSchedule::homogeneous)
      .def_property_readonly("flip_symmetric", &PlaneSchedule::flip_symmetric)
      .def_property_readonly("work", &PlaneSchedule::work)
      .def_property_readonly("table_size", &PlaneSchedule::table_size);
  py::class_<AnyImages, std::shared_ptr<AnyImages>>(m, "Images",
                                                    "What depends on one image only; see csrc/samples/images.h.")
      .def(py::init(&images_of), py::arg("program"), py::arg("backend"), py::arg("x"), py::arg("head") = py::none());
  m.def("image_strips", &write_image_strips, "Writes pixels and tables of strips of images; see csrc/samples/images.h.",
        py::arg("program"), py::arg("backend"), py::arg("x"), py::arg("pixels"), py::arg("table"));
  auto emulated = m.def_submodule("emulated_cuda", "The GPU's module on the host, for tests: pointers are the host's.");
  bind_device<Emulation>(emulated);
  m.def("image_diagonal", &image_diagonal_of, "Kernel diagonals (outputs, n), NNGP and NTK, and the head's features.",
        py::arg("program"), py::arg("backend"), py::arg("x"));
  m.def("extremes", &extremes, "The least and largest of a float32 matrix.", py::arg("backend"), py::arg("data"));
  m.def("evaluate_images", &evaluate_images,
        "Evaluate an image program on one tile of pairs; see csrc/backend.h. Returns (row, column) of a result that is "
        "not finite, or None.",
        py::arg("backend"), py::arg("rows"), py::arg("row"), py::arg("cols"), py::arg("col"), py::arg("nngp"),
        py::arg("ntk"), py::arg("nngp_mirror"), py::arg("ntk_mirror"), py::arg("diagonal"));
  m.def("evaluate", &evaluate,
        "Evaluate the program on one tile of pairs; see csrc/backend.h. Returns (row, column) of a result that is not "
        "finite, or None.",
        py::arg("backend"), py::arg("rows"), py::arg("row"), py::arg("cols"), py::arg("col"), py::arg("dot"),
        py::arg("nngp"), py::arg("ntk"), py::arg("nngp_mirror"), py::arg("ntk_mirror"), py::arg("diagonal"));
}

// pybind11 would wait for ever for the GIL of a subinterpreter that shares it.
PyMODINIT_FUNC PyInit__core() {
  if (PyInterpreterState_Get() == PyInterpreterState_Main()) return PyInit__core_of_main_interpreter();
  PyErr_SetString(PyExc_ImportError, "ntkcore does not run in a subinterpreter: import it in the main one");
  return nullptr;
}
