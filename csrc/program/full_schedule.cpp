#include "full_schedule.h"

#include <algorithm>
#include <optional>
#include <type_traits>
#include <utility>

namespace ntk {

namespace {

constexpr int kMostLanes = 16;  // that a mask is read beyond its end

// The distance from outputs to what they read, where it is the same for all of them.
std::optional<int> common_shift(const int* from, int out) {
  std::optional<int> shift;
  for (int o = 0; o < out; ++o) {
    if (from[o] < 0) continue;
    if (shift && *shift != from[o] - o) return std::nullopt;
    shift = from[o] - o;
  }
  return shift.value_or(0);
}

}  // namespace

OwnedWindow::OwnedWindow(int taps, int out, std::vector<int> source)
    : taps_(taps),
      out_(out),
      mask_pitch_(out + kMostLanes),
      source_(std::move(source)),
      first_run_{0},
      shift_(taps, 0),
      mask_(taps * mask_pitch_, 0) {
  for (int t = 0; t < taps; ++t) {
    const int* const from = source_.data() + std::int64_t(t) * out;
    if (const auto shift = common_shift(from, out)) {
      shift_[t] = *shift;
      for (int o = 0; o < out; ++o) mask_[t * mask_pitch_ + o] = from[o] < 0 ? 0 : -1;
    } else {
      add_runs(from);
    }
    first_run_.push_back(int(runs_.size()));
  }
}

void OwnedWindow::add_runs(const int* from) {
  for (int o = 0; o < out_;) {
    if (from[o] < 0) {
      ++o;
      continue;
    }
    Run run{o, from[o], 1, 1};
    if (o + 1 < out_ && from[o + 1] > from[o]) run.step = from[o + 1] - from[o];
    while (o + run.count < out_ && from[o + run.count] == run.from + run.count * run.step)
      ++run.count;
    runs_.push_back(run);
    o += run.count;
  }
}

FullSchedule::FullSchedule(std::vector<FullOp> ops, int slots, std::vector<OwnedWindow> windows,
                           std::vector<OwnedMatrix> matrices, OwnedProgram head, FullShape shape)
    : ops_(std::move(ops)),
      slots_(slots),
      windows_(std::move(windows)),
      matrices_(std::move(matrices)),
      head_(std::move(head)),
      shape_(shape),
      largest_(shape.positions) {
  for (const OwnedWindow& window : windows_) {
    window_views_.push_back(window.view());
    most_taps_ = std::max(most_taps_, window.view().taps);
  }
  for (const OwnedMatrix& matrix : matrices_) matrix_views_.push_back(matrix.view());
  for (const FullOp& op : ops_) {
    largest_ = std::max(largest_, op.positions);
    offset_.push_back(table_rows_);
    table_rows_ += features_at(op);
  }
}

FullProgram FullSchedule::view() const {
  return {ops_.data(),          int(ops_.size()), slots_,          window_views_.data(),
          matrix_views_.data(), shape_.positions, shape_.channels, largest_,
          most_taps_,           shape_.diagonal,  head_.view()};
}

double FullSchedule::work() const {
  std::vector<bool> diagonal(slots_, shape_.diagonal);
  double total = 0;
  for (const FullOp& op : ops_) {
    if (op.kind == FullOpKind::copy) diagonal[op.slot] = diagonal[op.other];
    if (op.kind == FullOpKind::diagonal || op.kind == FullOpKind::spread)
      diagonal[op.slot] = op.kind == FullOpKind::diagonal;
    const double n = op.positions, pairs = diagonal[op.slot] ? n : n * n;
    if (op.kind == FullOpKind::window)
      total += pairs * windows_[op.table].view().taps / 4;
    else if (op.kind == FullOpKind::linear)
      total += 4 * n * largest_;
    else
      total += pairs;
  }
  return total;
}

bool FullSchedule::homogeneous() const {
  return head_.homogeneous() &&
         std::all_of(ops_.begin(), ops_.end(), [](const FullOp& op) { return keeps_scale(op); });
}

}  // namespace ntk
