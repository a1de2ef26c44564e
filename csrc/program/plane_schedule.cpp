#include "plane_schedule.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

namespace ntk {
namespace {

bool pure_relu(const PlaneOp& op) {
  const ReluSlopes slopes = op.constants.relu();
  return is_abrelu(op) && slopes.below == 0 && slopes.above == 1;
}

bool plain_conv3(const PlaneOp& op) {
  return op.kind == PlaneOpKind::conv && op.window_h == 3 && op.window_w == 3 && op.stride_h == 1 &&
         op.stride_w == 1 && op.step_h == 1 && op.step_w == 1 && op.low_h == 1 && op.low_w == 1 &&
         op.out_h == op.h && op.out_w == op.w && !op.circular;
}

}  // namespace

void Need::add_up_to(int reach, int scale) {
  for (int d = -reach; d <= reach; ++d) add(std::int64_t(d) * scale);
}

void Need::add_pool(const Axis& pool, const Need& after, int scale) {
  for (int D = 1 - pool.out; D < pool.out; ++D) {
    if (!after.has(D)) continue;
    for (int e = 1 - pool.window; e < pool.window; ++e) {
      const int d = pool.stride * D + e;
      if (d > -pool.n && d < pool.n) add(std::int64_t(d) * scale);
    }
  }
}

void Need::close_circular(int period) {
  for (int d = 1 + period - n_; d < n_; ++d) {
    if (has(d)) add(d - period);
    if (has(d - period)) add(d);
  }
}

PlaneSchedule::PlaneSchedule(std::vector<PlaneOp> ops, int slots, OwnedProgram head,
                             std::array<int, 3> shape)
    : ops_(std::move(ops)),
      slots_(slots),
      head_(std::move(head)),
      h_(shape[0]),
      w_(shape[1]),
      channels_(shape[2]) {
  find_segments();
  find_fast_paths();
  // The planes of the whole program, and of the tables of every segment.
  full_needs_ = all_needs();
  full_ = segments_with(full_needs_);
  for (int last = 0; last < int(cuts_.size()); ++last) near_needs_.push_back(near_needs(last));
  for (const auto& some : near_needs_) near_.push_back(segments_with(some));
  // Where every op's features lie in a table.
  for (const PlaneOp& op : ops_) {
    offset_.push_back(op.constants.number > 0 ? offset_.back() + 2 : table_size_);
    table_size_ += feature_count(op);
  }
}

void PlaneSchedule::find_segments() {
  Segment current{0, 0, h_, w_, false, h_, w_, nullptr, nullptr};
  Strides stride(slots_);
  for (int k = 0; k < int(ops_.size()); ++k) {
    const PlaneOp& op = ops_[k];
    if (op.kind == PlaneOpKind::conv && op.circular) {
      current.circular = true;
      if (op.h > 1) current.period_h = op.h * stride.of(op.slot).first;
      if (op.w > 1) current.period_w = op.w * stride.of(op.slot).second;
    }
    stride.follow(op);
    if (op.kind != PlaneOpKind::pool) continue;
    current.last = k;
    cuts_.push_back(current);
    current = {k + 1, 0, op.out_h, op.out_w, false, op.out_h, op.out_w, nullptr, nullptr};
  }
  current.last = int(ops_.size());
  cuts_.push_back(current);
}

void PlaneSchedule::find_fast_paths() {
  std::vector<bool> positive(slots_, false);  // is K >= 0 known in the slot
  for (std::size_t k = 0; k < ops_.size(); ++k) {
    PlaneOp& op = ops_[k];
    if (op.kind == PlaneOpKind::conv) {
      const bool relu =
          k + 1 < ops_.size() && pure_relu(ops_[k + 1]) && ops_[k + 1].slot == op.slot;
      const Affine<double> map = op.constants.affine();
      const bool ntk_parameterization = map.e == map.a && map.f == map.b;
      if (plain_conv3(op)) op.fast = FastPath::conv3;
      if (plain_conv3(op) && relu && ntk_parameterization) {
        op.fast = positive[op.slot] ? FastPath::conv3_relu_positive : FastPath::conv3_relu;
        ops_[k + 1].fast = FastPath::skipped;
      }
    } else if (op.kind == PlaneOpKind::pointwise) {
      positive[op.slot] = pure_relu(op) || (positive[op.slot] && keeps_sign(op.pointwise));
    } else if (op.kind == PlaneOpKind::copy) {
      positive[op.slot] = positive[op.other];
    } else if (of_two_slots(op.kind)) {
      positive[op.slot] = positive[op.slot] && positive[op.other];
    }
  }
}

std::vector<PlaneSchedule::Needs> PlaneSchedule::no_needs() const {
  std::vector<Needs> out;
  for (const Segment& segment : cuts_) out.push_back({Need(segment.h), Need(segment.w)});
  return out;
}

Strides PlaneSchedule::strides_at_end(const Segment& segment) const {
  Strides strides(slots_);
  for (int k = segment.first; k < segment.last; ++k) strides.follow(ops_[k]);
  return strides;
}

void PlaneSchedule::add_upstream(std::vector<Needs>& needs, int s, bool pooled) const {
  const Segment& segment = cuts_[s];
  if (pooled) {
    const PlaneOp& pool = ops_[segment.last];
    const auto [h, w] = strides_at_end(segment).of(0);
    needs[s].h.add_pool(pool.rows(), needs[s + 1].h, h);
    needs[s].w.add_pool(pool.cols(), needs[s + 1].w, w);
  }
  if (!segment.circular) return;
  needs[s].h.close_circular(segment.period_h);
  needs[s].w.close_circular(segment.period_w);
}

std::vector<PlaneSchedule::Needs> PlaneSchedule::all_needs() const {
  std::vector<Needs> out = no_needs();
  for (int s = int(cuts_.size()) - 1; s >= 0; --s) {
    // Of the segment's own read-outs.
    Strides strides(slots_);
    for (int k = cuts_[s].first; k < cuts_[s].last; ++k) {
      const PlaneOp& op = ops_[k];
      strides.follow(op);
      if (op.kind != PlaneOpKind::readout) continue;
      const auto [h, w] = strides.of(op.slot);
      out[s].h.add_up_to(op.window_h < 0 ? op.h - 1 : 2 * op.window_h, h);
      out[s].w.add_up_to(op.window_w < 0 ? op.w - 1 : 2 * op.window_w, w);
    }
    // Of the segments after it.
    add_upstream(out, s, s + 1 < int(cuts_.size()));
  }
  return out;
}

std::vector<PlaneSchedule::Needs> PlaneSchedule::near_needs(int last) const {
  std::vector<Needs> out = no_needs();
  out[last].h.add(0);
  out[last].w.add(0);
  for (int s = last; s >= 0; --s) add_upstream(out, s, s < last);
  return out;
}

std::vector<Segment> PlaneSchedule::segments_with(const std::vector<Needs>& needs) const {
  std::vector<Segment> out = cuts_;
  for (std::size_t s = 0; s < out.size(); ++s) {
    out[s].need_h = needs[s].h.data();
    out[s].need_w = needs[s].w.data();
  }
  return out;
}

PlaneProgram PlaneSchedule::view() const {
  return {ops_.data(), int(ops_.size()), slots_,      full_.data(), int(full_.size()), h_,
          w_,          channels_,        head_.view()};
}

PlaneProgram PlaneSchedule::near(int last) const {
  PlaneProgram program = view();
  program.segments = near_[last].data();
  program.segment_count = last + 1;
  return program;
}

double PlaneSchedule::work() const {
  double total = 0;
  for (const Segment& s : full_) {
    double rows = 0, cols = 0;
    for (int d = 1 - s.h; d < s.h; ++d) rows += s.need_h[d + s.h - 1] ? s.h - std::abs(d) : 0;
    for (int d = 1 - s.w; d < s.w; ++d) cols += s.need_w[d + s.w - 1] ? s.w - std::abs(d) : 0;
    total += rows * cols * (1 + s.last - s.first);
  }
  return total;
}

bool PlaneSchedule::homogeneous() const {
  return head_.homogeneous() &&
         std::all_of(ops_.begin(), ops_.end(), [](const PlaneOp& op) { return keeps_scale(op); });
}

bool PlaneSchedule::flip_symmetric() const {
  for (const PlaneOp& op : ops_) {
    const bool window = op.kind == PlaneOpKind::conv || op.kind == PlaneOpKind::pool;
    const Axis cols = op.cols();
    const int reach = (cols.window - 1) * cols.step + 1;
    if (window && (cols.out - 1) * cols.stride + reach - cols.n != 2 * cols.low) return false;
  }
  return true;
}

}  // namespace ntk
