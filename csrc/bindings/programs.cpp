// From Python's tuples to programs: an op that does not fit raises, so that backends may trust all
// of them.
#include <algorithm>
#include <array>
#include <memory>
#include <tuple>
#include <utility>
#include <vector>

#include "../program/full_schedule.h"
#include "../program/owned_program.h"
#include "../program/plane_schedule.h"
#include "bind.h"
#include "checks.h"
#include "tabulated.h"

namespace ntk {
namespace {

// kind, dual, slot, other, constants.
using OpTuple = std::tuple<std::string, std::string, int, int, std::array<double, 4>>;
// The same, then (h, w, out_h, out_w, window_h, window_w, stride_h, stride_w, low_h, low_w,
// circular, normalize_edges, step_h, step_w).
using PlaneOpTuple =
    std::tuple<std::string, std::string, int, int, std::array<double, 4>, std::array<int, 14>>;
using ImageShape = std::array<int, 3>;
// The same of full covariances, then (positions after it, table).
using FullOpTuple = std::tuple<std::string, std::string, int, int, std::array<double, 4>, int, int>;
// Of a sparse matrix: where rows start, columns, values.
using MatrixTuple = std::tuple<Array<int>, Array<int>, Array<double>>;
// Positions, channels; is only p = p' of the data wanted, are left and right alike.
using FullShapeTuple = std::tuple<int, int, bool, bool>;

#define NTK_NAME(name, Phi) {#name, Pointwise::name},
const std::map<std::string, Pointwise> kDuals = {NTK_FOR_EACH_DUAL(NTK_NAME)};
const std::map<std::string, Pointwise> kPointwiseLayers = {NTK_FOR_EACH_POINTWISE_LAYER(NTK_NAME)};
#undef NTK_NAME

const std::map<std::string, OpKind> kOpKinds = {{"affine", OpKind::affine},
                                                {"copy", OpKind::copy},
                                                {"add", OpKind::add},
                                                {"multiply", OpKind::multiply},
                                                {"emit", OpKind::emit}};

const std::map<std::string, PlaneOpKind> kPlaneOpKinds = {
    {"conv", PlaneOpKind::conv}, {"copy", PlaneOpKind::copy},
    {"add", PlaneOpKind::add},   {"multiply", PlaneOpKind::multiply},
    {"pool", PlaneOpKind::pool}, {"readout", PlaneOpKind::readout}};

const std::map<std::string, FullOpKind> kFullOpKinds = {
    {"affine", FullOpKind::affine}, {"window", FullOpKind::window},
    {"linear", FullOpKind::linear}, {"copy", FullOpKind::copy},
    {"add", FullOpKind::add},       {"multiply", FullOpKind::multiply},
    {"spread", FullOpKind::spread}, {"diagonal", FullOpKind::diagonal},
    {"trace", FullOpKind::trace},   {"readout", FullOpKind::readout}};

// The kind of an op, and of a pointwise one which it is: "dual" with an activation's name, or a
// layer's own name.
template <class Kind>
std::pair<Kind, Pointwise> kind_of(const std::map<std::string, Kind>& kinds,
                                   const std::string& kind, const std::string& dual,
                                   const char* what) {
  if (kind == "dual") return {Kind::pointwise, find(kDuals, dual, "dual activation")};
  const auto layer = kPointwiseLayers.find(kind);
  if (layer != kPointwiseLayers.end()) return {Kind::pointwise, layer->second};
  return {find(kinds, kind, what), Pointwise{}};
}

std::vector<std::string> names_of_duals() {
  std::vector<std::string> names;
  for (const auto& [name, dual] : kDuals) names.push_back(name);
  return names;
}

// --- programs of vectors, and heads

std::vector<Op> checked_ops(const std::vector<OpTuple>& ops, int slots, int outputs,
                            const OwnedTables& tables) {
  require(slots >= 1 && slots <= 4096, "a program has between 1 and 4096 slots");
  require(outputs >= 1 && outputs <= 65536, "a program has between 1 and 65536 outputs");
  std::vector<Op> checked;
  for (const auto& [name, dual, slot, other, p] : ops) {
    require(slot >= 0 && slot < slots, "op: slot out of range");
    const Constants constants{{p[0], p[1], p[2], p[3]}, nullptr, 0, 0, 0, 1};
    if (is_tabulated(name)) {
      const auto append = [&, slot = slot](Pointwise part, const Constants& own) {
        checked.push_back({OpKind::pointwise, part, slot, 0, own});
      };
      append_tabulated(name, tables, other, constants, append);
      continue;
    }
    const auto [kind, pointwise] = kind_of(kOpKinds, name, dual, "op");
    const Op op{kind, pointwise, slot, other, constants};
    require(!of_two_slots(op.kind) || (other >= 0 && other < slots),
            "op: second slot out of range");
    require(op.kind != OpKind::emit || (other >= 0 && other < outputs),
            "emit: output out of range");
    checked.push_back(op);
  }
  return checked;
}

std::shared_ptr<OwnedProgram> make_program(const std::vector<OpTuple>& ops, int slots, int outputs,
                                           const std::vector<Array<double>>& arrays) {
  OwnedTables tables = owned_tables(arrays);
  std::vector<Op> checked = checked_ops(ops, slots, outputs, tables);
  return std::make_shared<OwnedProgram>(std::move(checked), slots, outputs, std::move(tables));
}

// Numbers of the ops with constants that a dense layer gave.
std::vector<int> dense_ops(const OwnedProgram& owned) {
  const Program program = owned.view();
  std::vector<int> numbers;
  for (int i = 0; i < program.size; ++i)
    if (program.ops[i].kind == OpKind::affine || program.ops[i].kind == OpKind::emit)
      numbers.push_back(i);
  return numbers;
}

// --- programs of images

PlaneOp plane_op(const PlaneOpTuple& from) {
  const auto& [name, dual, slot, other, p, g] = from;
  PlaneOp op{};
  if (is_tabulated(name))
    op.kind = PlaneOpKind::pointwise;
  else
    std::tie(op.kind, op.pointwise) = kind_of(kPlaneOpKinds, name, dual, "plane op");
  op.slot = slot;
  op.other = other;
  op.constants = {{p[0], p[1], p[2], p[3]}, nullptr, 0, 0, 0, 1};
  int* const geometry[] = {&op.h,        &op.w,        &op.out_h,    &op.out_w,
                           &op.window_h, &op.window_w, &op.stride_h, &op.stride_w,
                           &op.low_h,    &op.low_w,    &op.circular, &op.normalize_edges,
                           &op.step_h,   &op.step_w};
  for (std::size_t i = 0; i < g.size(); ++i) *geometry[i] = g[i];
  return op;
}

// Follows the image size and the strides of every slot through the ops of a program.
class PlaneOpChecker {
 public:
  PlaneOpChecker(int slots, int head_slots, ImageShape shape)
      : slots_(checked(slots)), head_slots_(head_slots), size_(slots, {0, 0}), strides_(slots) {
    const bool fits = size_ok(shape[0]) && size_ok(shape[1]) && shape[2] >= 1;
    require(fits && pixels_ok(shape[0], shape[1]),
            "images must be 1 to 16384 pixels high and wide, and of 2^20 at most");
    size_[0] = start_ = {shape[0], shape[1]};
  }

  void follow(const PlaneOp& op) {
    check_slots(op);
    if (op.kind == PlaneOpKind::conv || op.kind == PlaneOpKind::pool) check_window(op);
    if (op.kind == PlaneOpKind::conv && op.circular) check_circular(op);
    strides_.follow(op);
    if (op.kind == PlaneOpKind::pool) start_segment(op);
    if (op.kind == PlaneOpKind::readout) check_readout(op);
  }

 private:
  using Pair = std::pair<int, int>;
  static constexpr int kLargest = 1 << 14, kMostPixels = 1 << 20;
  static int checked(int slots) {
    require(slots >= 1 && slots <= 64, "an image program has between 1 and 64 slots");
    return slots;
  }
  static bool size_ok(int n) { return n >= 1 && n <= kLargest; }
  static bool pixels_ok(int h, int w) { return std::int64_t(h) * w <= kMostPixels; }

  void check_slots(const PlaneOp& op) {
    require(op.slot >= 0 && op.slot < slots_, "plane op: slot out of range");
    const bool two_slots = of_two_slots(op.kind), copy = op.kind == PlaneOpKind::copy;
    const bool other_ok = op.other >= 0 && op.other < slots_ && op.other != op.slot;
    require(!two_slots || other_ok, "plane op: second slot out of range");
    if (copy) size_[op.slot] = size_[op.other];
    require(size_[op.slot] == Pair(op.h, op.w), "plane op: image size differs from its slot's");
    require(!two_slots || copy || (size_[op.slot] == size_[op.other] && same_stride(op)),
            "add, multiply: image sizes or strides differ");
  }

  // A side of one pixel has displacement 0, whatever the stride.
  bool same_stride(const PlaneOp& op) const {
    const Pair one = strides_.of(op.slot), other = strides_.of(op.other);
    return (op.h == 1 || one.first == other.first) && (op.w == 1 || one.second == other.second);
  }

  void check_window(const PlaneOp& op) {
    require(size_ok(op.out_h) && size_ok(op.out_w) && pixels_ok(op.out_h, op.out_w),
            "plane op: output size out of range");
    const bool sizes = size_ok(op.window_h) && size_ok(op.window_w) && size_ok(op.stride_h) &&
                       size_ok(op.stride_w);
    require(sizes, "plane op: window or stride out of range");
    require(size_ok(op.step_h) && size_ok(op.step_w), "plane op: dilation out of range");
    const bool dilated = op.step_h > 1 || op.step_w > 1;
    require(!dilated || op.kind == PlaneOpKind::conv, "pool: its windows have no dilation");
    const int reach_h = (op.window_h - 1) * op.step_h, reach_w = (op.window_w - 1) * op.step_w;
    const bool padding =
        op.low_h >= 0 && op.low_h <= reach_h && op.low_w >= 0 && op.low_w <= reach_w;
    require(padding, "plane op: padding out of range");
    size_[op.slot] = {op.out_h, op.out_w};
  }

  void check_circular(const PlaneOp& op) {
    const Pair stride = strides_.of(op.slot);
    const bool rows = wraps(op.h, stride.first, start_.first, period_.first);
    const bool cols = rows && wraps(op.w, stride.second, start_.second, period_.second);
    require(cols, "conv: circular padding at sizes that do not go together");
  }
  // Do n pixels of this stride reach around a side of `start`, and at the period of those before?
  static bool wraps(int n, int stride, int start, int& period) {
    if (n == 1) return true;
    const bool fits =
        n * stride >= start && n * stride < 2 * start && (period == 0 || period == n * stride);
    period = n * stride;
    return fits;
  }

  void start_segment(const PlaneOp& pool) {
    require(pool.slot == 0 && ++pools_ < 16, "pool: slot 0 only, at most 15 pools");
    for (int s = 1; s < slots_; ++s) size_[s] = {0, 0};
    start_ = size_[0];
    period_ = {0, 0};
  }

  void check_readout(const PlaneOp& op) const {
    require(op.other >= 0 && op.other < head_slots_, "readout: head slot out of range");
    const bool window = op.window_h >= -1 && op.window_h <= kLargest && op.window_w >= -1 &&
                        op.window_w <= kLargest;
    require(window, "readout: window out of range");
  }

  int slots_, head_slots_, pools_ = 0;
  std::vector<Pair> size_;  // per slot
  Strides strides_;
  Pair start_, period_{0, 0};  // of the segment: its image, and where circular padding wraps
};

std::shared_ptr<PlaneSchedule> make_schedule(const std::vector<PlaneOpTuple>& ops, int slots,
                                             const std::vector<OpTuple>& head, int head_slots,
                                             int outputs, ImageShape shape,
                                             const std::vector<Array<double>>& arrays) {
  OwnedTables tables = owned_tables(arrays);
  PlaneOpChecker checker(slots, head_slots, shape);
  std::vector<PlaneOp> checked;
  for (const PlaneOpTuple& tuple : ops) {
    PlaneOp op = plane_op(tuple);
    checker.follow(op);
    const std::string& name = std::get<0>(tuple);
    if (!is_tabulated(name)) {
      checked.push_back(op);
      continue;
    }
    const auto append = [&](Pointwise part, const Constants& own) {
      op.pointwise = part;
      op.constants = own;
      checked.push_back(op);
    };
    append_tabulated(name, tables, op.other, op.constants, append);
  }
  std::vector<Op> head_ops = checked_ops(head, head_slots, outputs, tables);
  OwnedProgram owned_head(std::move(head_ops), head_slots, outputs, std::move(tables));
  return std::make_shared<PlaneSchedule>(std::move(checked), slots, std::move(owned_head), shape);
}

// --- programs of full covariances

constexpr int kMostPositions = 1 << 20;

// A window's table (taps, outputs), and the least number of positions that it reads.
std::pair<OwnedWindow, int> checked_window(const Array<int>& source) {
  require(source.ndim() == 2 && source.shape(0) >= 1 && source.shape(1) >= 1 &&
              source.shape(1) <= kMostPositions && source.shape(0) <= kMostPositions,
          "window: sources must have shape (taps, outputs)");
  std::vector<int> values(source.data(), source.data() + source.size());
  const auto [least, most] = std::minmax_element(values.begin(), values.end());
  require(*least >= -1 && *most < kMostPositions, "window: a source is out of range");
  const int reads = *most + 1;
  return {OwnedWindow(int(source.shape(0)), int(source.shape(1)), std::move(values)), reads};
}

std::pair<OwnedMatrix, int> checked_matrix(const MatrixTuple& from) {
  const auto& [start, column, value] = from;
  require(start.ndim() == 1 && column.ndim() == 1 && value.ndim() == 1 && start.size() >= 2 &&
              start.size() <= kMostPositions + 1 && column.size() == value.size(),
          "matrix: arrays of a wrong shape");
  std::vector<int> starts(start.data(), start.data() + start.size());
  std::vector<int> columns(column.data(), column.data() + column.size());
  require(starts[0] == 0 && std::is_sorted(starts.begin(), starts.end()) &&
              starts.back() == int(columns.size()),
          "matrix: rows must follow each other");
  int reads = 0;
  for (const int c : columns) {
    require(c >= 0 && c < kMostPositions, "matrix: a column is out of range");
    reads = std::max(reads, c + 1);
  }
  return {OwnedMatrix(std::move(starts), std::move(columns),
                      {value.data(), value.data() + value.size()}),
          reads};
}

// Follows positions, and whether only p = p' is held, of every slot through the ops of a program.
class FullOpChecker {
 public:
  FullOpChecker(int slots, int head_slots, const FullShapeTuple& shape) : head_slots_(head_slots) {
    require(slots >= 1 && slots <= 64, "a program of positions has between 1 and 64 slots");
    const auto [positions, channels, diagonal, flips] = shape;
    require(positions >= 1 && positions <= kMostPositions && channels >= 1,
            "samples must have a position and a channel");
    held_.resize(slots, {0, false});
    held_[0] = {positions, diagonal};
  }

  // `out`, `reads`: of the op's table.
  void follow(const FullOp& op, int out, int reads) {
    const int slots = int(held_.size());
    require(op.slot >= 0 && op.slot < slots, "full op: slot out of range");
    const bool copy = op.kind == FullOpKind::copy, add = of_two_slots(op.kind) && !copy;
    const bool other_ok = op.other >= 0 && op.other < slots && op.other != op.slot;
    require(!(add || copy) || other_ok, "full op: second slot out of range");
    Held& held = held_[op.slot];
    if (copy) held = held_[op.other];
    require(held.positions > 0, "full op: nothing is in its slot");
    require(!add || held == held_[op.other], "add: what the slots hold differs");
    require(reads <= held.positions, "full op: its table reads beyond the last position");
    if (out > 0) held.positions = out;
    if (op.kind == FullOpKind::diagonal || op.kind == FullOpKind::spread) {
      require(held.diagonal == (op.kind == FullOpKind::spread), "full op: it holds that already");
      held.diagonal = !held.diagonal;
    }
    require(op.positions == held.positions, "full op: positions differ from its slot's");
    const bool all = op.kind == FullOpKind::readout, read = all || op.kind == FullOpKind::trace;
    require(!read || (op.other >= 0 && op.other < head_slots_), "readout: head slot out of range");
    require(!all || !held.diagonal, "readout: its slot does not hold all pairs");
  }

 private:
  struct Held {
    int positions;
    bool diagonal;
    bool operator==(const Held& o) const {
      return positions == o.positions && diagonal == o.diagonal;
    }
  };
  std::vector<Held> held_;  // per slot
  int head_slots_;
};

std::shared_ptr<FullSchedule> make_full(const std::vector<FullOpTuple>& ops, int slots,
                                        const std::vector<Array<int>>& windows,
                                        const std::vector<MatrixTuple>& matrices,
                                        const std::vector<OpTuple>& head, int head_slots,
                                        int outputs, const FullShapeTuple& shape,
                                        const std::vector<Array<double>>& arrays) {
  OwnedTables tables = owned_tables(arrays);
  std::vector<OwnedWindow> owned_windows;
  std::vector<OwnedMatrix> owned_matrices;
  std::vector<int> window_reads, matrix_reads;
  for (const auto& source : windows) {
    auto [window, reads] = checked_window(source);
    owned_windows.push_back(std::move(window));
    window_reads.push_back(reads);
  }
  for (const auto& entries : matrices) {
    auto [matrix, reads] = checked_matrix(entries);
    owned_matrices.push_back(std::move(matrix));
    matrix_reads.push_back(reads);
  }
  FullOpChecker checker(slots, head_slots, shape);
  std::vector<FullOp> checked;
  for (const auto& [name, dual, slot, other, p, positions, table] : ops) {
    const Constants constants{{p[0], p[1], p[2], p[3]}, nullptr, 0, 0, 0, 1};
    if (is_tabulated(name)) {
      FullOp op{FullOpKind::pointwise, {}, slot, other, constants, positions, 0};
      checker.follow(op, 0, 0);
      const auto append = [&](Pointwise part, const Constants& own) {
        op.pointwise = part;
        op.constants = own;
        checked.push_back(op);
      };
      append_tabulated(name, tables, other, constants, append);
      continue;
    }
    const auto [kind, pointwise] = kind_of(kFullOpKinds, name, dual, "full op");
    const bool window = kind == FullOpKind::window, linear = kind == FullOpKind::linear;
    const int count = int(window ? windows.size() : linear ? matrices.size() : 0);
    require(!(window || linear) || (table >= 0 && table < count), "full op: table out of range");
    checked.push_back({kind, pointwise, slot, other, constants, positions, table});
    checker.follow(checked.back(),
                   window   ? owned_windows[table].view().out
                   : linear ? owned_matrices[table].view().out
                            : 0,
                   window   ? window_reads[table]
                   : linear ? matrix_reads[table]
                            : 0);
  }
  const auto [positions, channels, diagonal, flips] = shape;
  std::vector<Op> head_ops = checked_ops(head, head_slots, outputs, tables);
  OwnedProgram owned_head(std::move(head_ops), head_slots, outputs, std::move(tables));
  return std::make_shared<FullSchedule>(std::move(checked), slots, std::move(owned_windows),
                                        std::move(owned_matrices), std::move(owned_head),
                                        FullShape{positions, channels, diagonal, flips});
}

}  // namespace

void bind_programs(py::module_& m) {
  m.def("duals", &names_of_duals, "Names of the dual activations.");
  py::class_<OwnedProgram, std::shared_ptr<OwnedProgram>>(m, "Program",
                                                          "Ops over slots; csrc/program/program.h.")
      .def(py::init(&make_program), py::arg("ops"), py::arg("slots"), py::arg("outputs"),
           py::arg("tables") = std::vector<Array<double>>())
      .def_property_readonly("is_relu_chain",
                             [](const OwnedProgram& p) { return is_relu_chain(p.view()); })
      .def_property_readonly("dense_ops", &dense_ops);
  py::class_<PlaneSchedule, std::shared_ptr<PlaneSchedule>>(
      m, "ImageProgram", "Plane ops, read-outs and a head; see csrc/program/plane_program.h.")
      .def(py::init(&make_schedule), py::arg("ops"), py::arg("slots"), py::arg("head"),
           py::arg("head_slots"), py::arg("outputs"), py::arg("shape"),
           py::arg("tables") = std::vector<Array<double>>())
      .def_property_readonly("head_needs_variance", &PlaneSchedule::head_needs_variance)
      .def_property_readonly("homogeneous", &PlaneSchedule::homogeneous)
      .def_property_readonly("flip_symmetric", &PlaneSchedule::flip_symmetric)
      .def_property_readonly("work", &PlaneSchedule::work)
      .def_property_readonly("table_size", &PlaneSchedule::table_size);
  py::class_<FullSchedule, std::shared_ptr<FullSchedule>>(
      m, "FullProgram", "Ops on full covariances, and a head; see csrc/program/full_program.h.")
      .def(py::init(&make_full), py::arg("ops"), py::arg("slots"), py::arg("windows"),
           py::arg("matrices"), py::arg("head"), py::arg("head_slots"), py::arg("outputs"),
           py::arg("shape"), py::arg("tables") = std::vector<Array<double>>())
      .def_property_readonly("head_needs_variance", &FullSchedule::head_needs_variance)
      .def_property_readonly("homogeneous", &FullSchedule::homogeneous)
      .def_property_readonly("flip_symmetric", &FullSchedule::flip_symmetric)
      .def_property_readonly("work", &FullSchedule::work)
      .def_property_readonly("table_size",
                             [](const FullSchedule& full) {
                               return full.table_rows() * pitch_of<double>(full.view());
                             })
      .def_property_readonly("thread_bytes", [](const FullSchedule& full) {
        return backend_named("generic").full_bytes(full.view());
      });
}

}  // namespace ntk
