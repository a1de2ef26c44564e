// Programs of images: an op that does not fit raises, so that backends may trust all of them.
#include <array>
#include <memory>
#include <tuple>
#include <utility>
#include <vector>

#include "../program/plane_schedule.h"
#include "bind.h"
#include "ops.h"

namespace ntk {
namespace {

// As OpTuple, then (h, w, out_h, out_w, window_h, window_w, stride_h, stride_w, low_h, low_w,
// circular, normalize_edges, step_h, step_w).
using PlaneOpTuple =
    std::tuple<std::string, std::string, int, int, std::array<double, 4>, std::array<int, 14>>;
using ImageShape = std::array<int, 3>;

const std::map<std::string, PlaneOpKind> kKinds = {
    {"conv", PlaneOpKind::conv}, {"copy", PlaneOpKind::copy},
    {"add", PlaneOpKind::add},   {"multiply", PlaneOpKind::multiply},
    {"pool", PlaneOpKind::pool}, {"readout", PlaneOpKind::readout}};

// An op of this shape and these slots, the rest not known yet.
PlaneOp shaped_op(int slot, int other, const std::array<int, 14>& g) {
  PlaneOp op{};
  op.slot = slot;
  op.other = other;
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
    const auto& [name, dual, slot, other, p, geometry] = tuple;
    PlaneOp op = shaped_op(slot, other, geometry);
    const auto append = [&](PlaneOpKind kind, Pointwise part, const Constants& constants) {
      op.kind = kind;
      op.pointwise = part;
      op.constants = constants;
      checker.follow(op);
      checked.push_back(op);
    };
    append_ops(kKinds, "plane op", name, dual, other, p, tables, append);
  }
  std::vector<Op> head_ops = checked_ops(head, head_slots, outputs, tables);
  OwnedProgram owned_head(std::move(head_ops), head_slots, outputs, std::move(tables));
  return std::make_shared<PlaneSchedule>(std::move(checked), slots, std::move(owned_head), shape);
}

}  // namespace

void bind_image_programs(py::module_& m) {
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
}

}  // namespace ntk
