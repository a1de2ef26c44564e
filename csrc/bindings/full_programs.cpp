// Programs of full covariances: an op or a table that does not fit raises, so that backends may
// trust all of them.
#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <tuple>
#include <utility>
#include <vector>

#include "../program/full_schedule.h"
#include "bind.h"
#include "ops.h"

namespace ntk {
namespace {

// As OpTuple, then (positions after it, table of its kind, mask, matrix).
using FullOpTuple = std::tuple<std::string, std::string, int, int, std::array<double, 4>, int, int,
                               int, std::string>;
// Of a sparse matrix: where rows start, columns, values.
using MatrixTuple = std::tuple<Array<int>, Array<int>, Array<double>>;
// Positions, channels; is only p = p' of the data wanted, are left and right alike; are a mask, and a
// pattern, beside the features.
using FullShapeTuple = std::tuple<int, int, bool, bool, bool, bool>;

const std::map<std::string, FullOpKind> kKinds = {
    {"affine", FullOpKind::affine}, {"window", FullOpKind::window},
    {"linear", FullOpKind::linear}, {"copy", FullOpKind::copy},
    {"add", FullOpKind::add},       {"multiply", FullOpKind::multiply},
    {"spread", FullOpKind::spread}, {"diagonal", FullOpKind::diagonal},
    {"trace", FullOpKind::trace},   {"readout", FullOpKind::readout},
    {"mix", FullOpKind::mix},       {"embed", FullOpKind::embed},
    {"relate", FullOpKind::relate}, {"recur", FullOpKind::recur}};

const std::map<std::string, Matrix> kMatrices = {
    {"", Matrix::none},     {"given", Matrix::given}, {"softmax", Matrix::softmax},
    {"relu", Matrix::relu}, {"abs", Matrix::abs},     {"identity", Matrix::identity}};

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

OwnedGrid checked_grid(const Array<double>& from) {
  require(from.ndim() == 2 && from.shape(0) == from.shape(1) && from.shape(0) >= 1 &&
              from.shape(0) <= kMostPositions,
          "grid: must have shape (positions, positions)");
  return {int(from.shape(0)), {from.data(), from.data() + from.size()}};
}

OwnedMask checked_mask(const Array<int>& from, int positions) {
  require(from.ndim() == 1 && from.size() >= 1 && from.size() <= kMostPositions,
          "mask: origins must have shape (positions,)");
  std::vector<int> origin(from.data(), from.data() + from.size());
  for (const int o : origin) require(o >= 0 && o < positions, "mask: an origin is out of range");
  return {std::move(origin), positions};
}

FullShape checked_shape(const FullShapeTuple& shape) {
  const auto [positions, channels, diagonal, flips, mask, pattern] = shape;
  require(positions >= 1 && positions <= kMostPositions && channels >= 1,
          "samples must have a position and a channel");
  return {positions, channels, diagonal, flips, {mask, pattern}};
}

// Follows positions, and whether only p = p' is held, of every slot through the ops of a program.
class FullOpChecker {
 public:
  FullOpChecker(int slots, int head_slots, const FullShape& shape, const FullTables& tables)
      : head_slots_(head_slots), shape_(shape), tables_(tables) {
    require(slots >= 1 && slots <= 64, "a program of positions has between 1 and 64 slots");
    held_.resize(slots, {0, false});
    held_[0] = {shape.positions, shape.diagonal};
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
    if (op.kind == FullOpKind::relate) {
      require(op.other >= 0 && op.other < slots && held == held_[op.other],
              "relate: what the slots hold differs");
      require(!held.diagonal, "relate: its slots do not hold all pairs");
    }
    check_own(op, held);
    if (recurs(op)) check_recurrence(op);
    require(reads <= held.positions, "full op: its table reads beyond the last position");
    if (op.kind != FullOpKind::pointwise && out > 0) held.positions = out;
    require(op.kind != FullOpKind::pointwise || out == 0 || out == held.positions,
            "normalize: its matrix has another number of positions");
    if (op.kind == FullOpKind::diagonal || op.kind == FullOpKind::spread) {
      require(held.diagonal == (op.kind == FullOpKind::spread), "full op: it holds that already");
      held.diagonal = !held.diagonal;
    }
    require(op.positions == held.positions, "full op: positions differ from its slot's");
    const bool all = op.kind == FullOpKind::readout, read = all || op.kind == FullOpKind::trace;
    require(!read || (op.other >= 0 && op.other < head_slots_), "readout: head slot out of range");
    require(!all || !held.diagonal, "readout: its slot does not hold all pairs");
    require(op.mask < 0 || tables_.masks[op.mask].view().positions == held.positions,
            "full op: its mask has another number of positions");
  }

 private:
  struct Held {
    int positions;
    bool diagonal;
    bool operator==(const Held& o) const {
      return positions == o.positions && diagonal == o.diagonal;
    }
  };

  // Masks, grids and matrices of a sample's own.
  void check_own(const FullOp& op, const Held& held) const {
    const bool mix = op.kind == FullOpKind::mix, embed = op.kind == FullOpKind::embed;
    const bool weights = holds_weights(op), own = mix || (weights && op.matrix != Matrix::none);
    require(
        op.mask >= -1 && op.mask < int(tables_.masks.size()) && (op.mask < 0 || shape_.beside.mask),
        "full op: mask out of range");
    require((op.matrix != Matrix::none) == own, "full op: a matrix of its own it does not take");
    require(!own || !held.diagonal, "mix: its slot does not hold all pairs");
    require(
        op.matrix != Matrix::given || (shape_.beside.pattern && held.positions == shape_.positions),
        "mix: the data hold no such matrix");
    const bool grid = embed || (own && op.table >= 0);
    require(!grid || (op.table >= 0 && op.table < int(tables_.grids.size()) &&
                      tables_.grids[op.table].view().positions == held.positions),
            "full op: its grid is not there, or has another number of positions");
  }

  // Constants are the dual's but for the last.
  static void check_recurrence(const FullOp& op) {
    const bool all_four = op.pointwise == Pointwise::even || op.pointwise == Pointwise::odd;
    require(!all_four, "recur: its dual has constants of its own where the weight stands");
    const double weight = weight_of_states(op);
    require(weight >= 0 && std::isfinite(weight), "recur: its weight must be a number >= 0");
  }

  std::vector<Held> held_;  // per slot
  int head_slots_;
  const FullShape& shape_;
  const FullTables& tables_;
};

// Tables of one kind, and how many positions each reads at least.
template <class Owned>
struct Checked {
  std::vector<Owned> tables;
  std::vector<int> reads;

  template <class From, class Check>
  Checked(const std::vector<From>& all, const Check& check) {
    for (const From& each : all) {
      auto [table, least] = check(each);
      tables.push_back(std::move(table));
      reads.push_back(least);
    }
  }
  // (outputs, positions read) of table number `which`.
  std::pair<int, int> sizes(int which) const {
    require(which >= 0 && which < int(tables.size()), "full op: table out of range");
    return {tables[which].view().out, reads[which]};
  }
};

std::shared_ptr<FullSchedule> make_full(
    const std::vector<FullOpTuple>& ops, int slots, const std::vector<Array<int>>& sources,
    const std::vector<MatrixTuple>& entries, const std::vector<Array<double>>& grids,
    const std::vector<Array<int>>& masks, const std::vector<OpTuple>& head, int head_slots,
    int outputs, const FullShapeTuple& shape_tuple, const std::vector<Array<double>>& arrays) {
  OwnedTables tables = owned_tables(arrays);
  Checked<OwnedWindow> windows(sources, checked_window);
  Checked<OwnedMatrix> matrices(entries, checked_matrix);
  const FullShape shape = checked_shape(shape_tuple);
  FullTables own;
  for (const Array<double>& grid : grids) own.grids.push_back(checked_grid(grid));
  for (const Array<int>& mask : masks) own.masks.push_back(checked_mask(mask, shape.positions));
  FullOpChecker checker(slots, head_slots, shape, own);
  std::vector<FullOp> checked;
  for (const FullOpTuple& tuple : ops) {
    const auto& [name, dual, slot, other, p, positions, table, mask, matrix_name] = tuple;
    const std::string& dual_name = dual;
    FullOp op{
        {}, {}, slot, other, {}, positions, table, mask, find(kMatrices, matrix_name, "matrix")};
    const auto append = [&](FullOpKind kind, Pointwise part, const Constants& constants) {
      op.kind = kind;
      op.pointwise = kind == FullOpKind::recur ? find(duals(), dual_name, "dual activation") : part;
      op.constants = constants;
      const bool matrix = kind == FullOpKind::linear || means_of(op);
      const auto [out, reads] = kind == FullOpKind::window ? windows.sizes(op.table)
                                : matrix                   ? matrices.sizes(op.table)
                                                           : std::pair(0, 0);
      checker.follow(op, out, reads);
      checked.push_back(op);
    };
    append_ops(kKinds, "full op", name, dual, other, p, tables, append);
  }
  own.windows = std::move(windows.tables);
  own.matrices = std::move(matrices.tables);
  std::vector<Op> head_ops = checked_ops(head, head_slots, outputs, tables);
  OwnedProgram owned_head(std::move(head_ops), head_slots, outputs, std::move(tables));
  return std::make_shared<FullSchedule>(std::move(checked), slots, std::move(own),
                                        std::move(owned_head), shape);
}

}  // namespace

void bind_full_programs(py::module_& m) {
  py::class_<FullSchedule, std::shared_ptr<FullSchedule>>(
      m, "FullProgram", "Ops on full covariances, and a head; see csrc/program/full_program.h.")
      .def(py::init(&make_full), py::arg("ops"), py::arg("slots"), py::arg("windows"),
           py::arg("matrices"), py::arg("grids"), py::arg("masks"), py::arg("head"),
           py::arg("head_slots"), py::arg("outputs"), py::arg("shape"),
           py::arg("tables") = std::vector<Array<double>>())
      .def_property_readonly("head_needs_variance", &FullSchedule::head_needs_variance)
      .def_property_readonly("homogeneous", &FullSchedule::homogeneous)
      .def_property_readonly("flip_symmetric", &FullSchedule::flip_symmetric)
      .def_property_readonly("work", &FullSchedule::work)
      .def_property_readonly("mixes", &FullSchedule::mixes)
      .def_property_readonly("table_size",
                             [](const FullSchedule& full) {
                               return full.table_rows() * pitch_of<double>(full.view());
                             })
      .def_property_readonly("thread_bytes", [](const FullSchedule& full) {
        return backend_named("generic").full_bytes(full.view());
      });
}

}  // namespace ntk
