#include "full_schedule.h"

#include <algorithm>
#include <optional>
#include <type_traits>
#include <utility>

namespace ntk {

namespace {

constexpr int kMostLanes = 16;  // that a mask is read beyond its end
constexpr int kChain = 10;      // elements that one position takes as long as, after another

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
      needs_(out + 1, 0),
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
  for (int o = 0; o < out; ++o) {
    needs_[o + 1] = needs_[o];
    for (int t = 0; t < taps; ++t)
      needs_[o + 1] = std::max(needs_[o + 1], source_[std::int64_t(t) * out + o] + 1);
  }
}

OwnedMask::OwnedMask(std::vector<int> origin, int positions)
    : origin_(std::move(origin)), reach_(positions + 1, 0) {
  for (int p = 0; p < int(origin_.size()); ++p)
    for (int n = origin_[p] + 1; n <= positions; ++n) reach_[n] = p + 1;
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

FullSchedule::FullSchedule(std::vector<FullOp> ops, int slots, FullTables tables, OwnedProgram head,
                           FullShape shape)
    : ops_(std::move(ops)),
      slots_(slots),
      tables_(std::move(tables)),
      head_(std::move(head)),
      shape_(shape),
      own_pairs_(ops_.size() + 1),
      table_rows_(length_rows(shape.beside)),
      largest_(shape.positions) {
  for (const OwnedWindow& window : tables_.windows) {
    window_views_.push_back(window.view());
    most_taps_ = std::max(most_taps_, window.view().taps);
  }
  for (const OwnedMatrix& matrix : tables_.matrices) matrix_views_.push_back(matrix.view());
  for (const OwnedGrid& grid : tables_.grids) grid_views_.push_back(grid.view());
  for (const OwnedMask& mask : tables_.masks) mask_views_.push_back(mask.view());
  for (const FullOp& op : ops_) {
    largest_ = std::max(largest_, op.positions);
    offset_.push_back(table_rows_);
    table_rows_ += features_at(op);
  }
  find_own_pairs();
}

void FullSchedule::find_own_pairs() {
  std::vector<bool> all(slots_, false);  // are all pairs of the slot needed by what follows
  for (int i = int(ops_.size()) - 1; i >= 0; --i) {
    const FullOp& op = ops_[i];
    const bool after = all[op.slot];
    own_pairs_[i + 1] = after;
    switch (op.kind) {
      case FullOpKind::mix:
        all[op.slot] = true;
        break;
      case FullOpKind::relate:
        all[op.slot] = all[op.other] = true;
        break;
      case FullOpKind::linear:
        all[op.slot] = after || !tables_.matrices[op.table].single();
        break;
      case FullOpKind::spread:
      case FullOpKind::diagonal:
        all[op.slot] = false;
        break;
      case FullOpKind::copy:
        all[op.other] = all[op.other] || after;
        all[op.slot] = false;
        break;
      case FullOpKind::add:
      case FullOpKind::multiply:
        all[op.other] = after;
        break;
      case FullOpKind::pointwise:
        all[op.slot] = after || op.matrix != Matrix::none;
        break;
      default:
        break;
    }
  }
  own_pairs_[0] = all[0];
}

FullProgram FullSchedule::view() const {
  return {ops_.data(),
          int(ops_.size()),
          slots_,
          window_views_.data(),
          matrix_views_.data(),
          grid_views_.data(),
          mask_views_.data(),
          shape_.positions,
          shape_.channels,
          shape_.beside,
          largest_,
          most_taps_,
          shape_.diagonal,
          own_pairs_.data(),
          head_.view()};
}

bool FullSchedule::mixes() const {
  return std::any_of(ops_.begin(), ops_.end(),
                     [](const FullOp& op) { return op.kind == FullOpKind::mix; });
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
      total += pairs * tables_.windows[op.table].view().taps / 4;
    else if (op.kind == FullOpKind::linear)
      total += 4 * n * largest_;
    else if (op.kind == FullOpKind::mix)
      total += n * n * n / 6;
    else if (recurs(op))
      total += diagonal[op.slot] ? kChain * pairs : 2 * pairs;
    else
      total += pairs;
  }
  return total;
}

bool FullSchedule::homogeneous() const {
  if (shape_.beside.channels(shape_.positions) > 0 || !head_.homogeneous()) return false;
  return std::all_of(ops_.begin(), ops_.end(), [](const FullOp& op) {
    const FullOpKind kind = op.kind;
    const bool coupled = kind == FullOpKind::mix || kind == FullOpKind::embed ||
                         kind == FullOpKind::relate || holds_weights(op);
    if (recurs(op)) return op.pointwise == Pointwise::abrelu;
    return !coupled && keeps_scale(op);
  });
}

}  // namespace ntk
