// Programs of full covariances: an op or a table that does not fit raises, so that backends may
// trust all of them.
#include <algorithm>
#include <array>
#include <memory>
#include <tuple>
#include <utility>
#include <vector>

#include "../program/full_schedule.h"
#include "bind.h"
#include "ops.h"

namespace ntk {
namespace {

// As OpTuple, then (positions after it, table of its kind).
using FullOpTuple = std::tuple<std::string, std::string, int, int, std::array<double, 4>, int, int>;
// Of a sparse matrix: where rows start, columns, values.
using MatrixTuple = std::tuple<Array<int>, Array<int>, Array<double>>;
// Positions, channels; is only p = p' of the data wanted, are left and right alike.
using FullShapeTuple = std::tuple<int, int, bool, bool>;

const std::map<std::string, FullOpKind> kKinds = {
    {"affine", FullOpKind::affine}, {"window", FullOpKind::window},
    {"linear", FullOpKind::linear}, {"copy", FullOpKind::copy},
    {"add", FullOpKind::add},       {"multiply", FullOpKind::multiply},
    {"spread", FullOpKind::spread}, {"diagonal", FullOpKind::diagonal},
    {"trace", FullOpKind::trace},   {"readout", FullOpKind::readout}};

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

std::shared_ptr<FullSchedule> make_full(const std::vector<FullOpTuple>& ops, int slots,
                                        const std::vector<Array<int>>& sources,
                                        const std::vector<MatrixTuple>& entries,
                                        const std::vector<OpTuple>& head, int head_slots,
                                        int outputs, const FullShapeTuple& shape,
                                        const std::vector<Array<double>>& arrays) {
  OwnedTables tables = owned_tables(arrays);
  Checked<OwnedWindow> windows(sources, checked_window);
  Checked<OwnedMatrix> matrices(entries, checked_matrix);
  FullOpChecker checker(slots, head_slots, shape);
  std::vector<FullOp> checked;
  for (const FullOpTuple& tuple : ops) {
    const auto& [name, dual, slot, other, p, positions, table] = tuple;
    FullOp op{{}, {}, slot, other, {}, positions, table};
    const auto append = [&](FullOpKind kind, Pointwise part, const Constants& constants) {
      op.kind = kind;
      op.pointwise = part;
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
  const auto [positions, channels, diagonal, flips] = shape;
  std::vector<Op> head_ops = checked_ops(head, head_slots, outputs, tables);
  OwnedProgram owned_head(std::move(head_ops), head_slots, outputs, std::move(tables));
  return std::make_shared<FullSchedule>(std::move(checked), slots, std::move(windows.tables),
                                        std::move(matrices.tables), std::move(owned_head),
                                        FullShape{positions, channels, diagonal, flips});
}

}  // namespace

void bind_full_programs(py::module_& m) {
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
