#include "plane_schedule.h"

#include <algorithm>
#include <cstdlib>
#include <type_traits>
#include <utility>

namespace ntk {
namespace {

// Marks |d| <= reach, scaled to the segment's start, in a need of half size n - 1.
void mark(std::vector<unsigned char>& need, int n, int reach, int scale) {
  for (int d = -reach; d <= reach; ++d)
    if (d * scale > -n && d * scale < n) need[d * scale + n - 1] = 1;
}

// Planes d = stride D + e, |e| < window, of the image of size n_in that a pool's planes D are made of.
void mark_pool(std::vector<unsigned char>& need, int n, int scale, int n_in, int window, int stride,
               const std::vector<unsigned char>& next, int n_out) {
  for (int D = 1 - n_out; D < n_out; ++D) {
    if (!next[D + n_out - 1]) continue;
    for (int e = 1 - window; e < window; ++e) {
      const int d = stride * D + e;
      if (d > -n_in && d < n_in && d * scale > -n && d * scale < n) need[d * scale + n - 1] = 1;
    }
  }
}

// A circular convolution reads a plane's mates d +- period too.
void close_circular(std::vector<unsigned char>& need, int n, int period) {
  for (int d = 1 + period - n; d < n; ++d)
    need[d + n - 1] = need[d - period + n - 1] = need[d + n - 1] | need[d - period + n - 1];
}

bool pure_relu(const PlaneOp& op) {
  const ReluSlopes slopes = op.constants.relu();
  return is_abrelu(op) && slopes.below == 0 && slopes.above == 1;
}

bool plain_conv3(const PlaneOp& op) {
  return op.kind == PlaneOpKind::conv && op.window_h == 3 && op.window_w == 3 && op.stride_h == 1 && op.stride_w == 1 &&
         op.low_h == 1 && op.low_w == 1 && op.out_h == op.h && op.out_w == op.w && !op.circular;
}

}  // namespace

PlaneSchedule::PlaneSchedule(std::vector<PlaneOp> ops, int slots, OwnedProgram head, std::array<int, 3> shape)
    : ops_(std::move(ops)), slots_(slots), head_(std::move(head)), h_(shape[0]), w_(shape[1]), channels_(shape[2]) {
  find_segments();
  find_fast_paths();
  full_needs_ = needs(int(cuts_.size()) - 1, false);
  full_ = segments_with(full_needs_);
  for (int last = 0; last < int(cuts_.size()); ++last) near_needs_.push_back(needs(last, true));
  for (const auto& some : near_needs_) near_.push_back(segments_with(some));
  for (const PlaneOp& op : ops_) {
    offset_.push_back(table_size_);
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
      const bool relu = k + 1 < ops_.size() && pure_relu(ops_[k + 1]) && ops_[k + 1].slot == op.slot;
      const Affine<double> map = op.constants.affine();
      const bool ntk_parameterization = map.e == map.a && map.f == map.b;
      if (plain_conv3(op)) op.fast = FastPath::conv3;
      if (plain_conv3(op) && relu && ntk_parameterization) {
        op.fast = positive[op.slot] ? FastPath::conv3_relu_positive : FastPath::conv3_relu;
        ops_[k + 1].fast = FastPath::skipped;
      }
    } else if (op.kind == PlaneOpKind::pointwise) {
      positive[op.slot] = pure_relu(op);
    } else if (op.kind == PlaneOpKind::copy) {
      positive[op.slot] = positive[op.other];
    } else if (op.kind == PlaneOpKind::add) {
      positive[op.slot] = positive[op.slot] && positive[op.other];
    }
  }
}

std::vector<PlaneSchedule::Needs> PlaneSchedule::needs(int last, bool near) const {
  std::vector<Needs> out(cuts_.size());
  for (int s = int(cuts_.size()) - 1; s >= 0; --s) {
    const Segment& segment = cuts_[s];
    out[s].h.assign(2 * segment.h - 1, 0), out[s].w.assign(2 * segment.w - 1, 0);
    if (s > last) continue;
    if (near && s == last) mark(out[s].h, segment.h, 0, 1), mark(out[s].w, segment.w, 0, 1);
    Strides strides(slots_);
    for (int k = segment.first; k < segment.last; ++k) {
      const PlaneOp& op = ops_[k];
      strides.follow(op);
      if (op.kind != PlaneOpKind::readout || near) continue;
      mark(out[s].h, segment.h, op.window_h < 0 ? op.h - 1 : 2 * op.window_h, strides.of(op.slot).first);
      mark(out[s].w, segment.w, op.window_w < 0 ? op.w - 1 : 2 * op.window_w, strides.of(op.slot).second);
    }
    if (s < last) {
      const PlaneOp& pool = ops_[segment.last];
      mark_pool(out[s].h, segment.h, strides.of(0).first, pool.h, pool.window_h, pool.stride_h, out[s + 1].h,
                pool.out_h);
      mark_pool(out[s].w, segment.w, strides.of(0).second, pool.w, pool.window_w, pool.stride_w, out[s + 1].w,
                pool.out_w);
    }
    if (!segment.circular) continue;
    close_circular(out[s].h, segment.h, segment.period_h), close_circular(out[s].w, segment.w, segment.period_w);
  }
  return out;
}

std::vector<Segment> PlaneSchedule::segments_with(const std::vector<Needs>& needs) const {
  std::vector<Segment> out = cuts_;
  for (std::size_t s = 0; s < out.size(); ++s) out[s].need_h = needs[s].h.data(), out[s].need_w = needs[s].w.data();
  return out;
}

PlaneProgram PlaneSchedule::view() const {
  return {ops_.data(), int(ops_.size()), slots_, full_.data(), int(full_.size()), h_, w_, channels_, head_.view()};
}

PlaneProgram PlaneSchedule::near(int last) const {
  PlaneProgram program = view();
  program.segments = near_[last].data();
  program.segment_count = last + 1;
  return program;
}

bool PlaneSchedule::head_needs_variance() const {
  const Program head = head_.view();
  return std::any_of(head.ops, head.ops + head.size, [](const Op& op) { return op.kind == OpKind::pointwise; });
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
  const auto scales = [](const auto& op) {  // of plane ops and vector ops
    using Kind = decltype(op.kind);
    if (op.kind == Kind::pointwise) return is_abrelu(op);
    bool affine = false;
    if constexpr (std::is_same_v<Kind, OpKind>)
      affine = op.kind == Kind::affine || op.kind == Kind::emit;
    else
      affine = op.kind == Kind::conv;
    return !affine || (op.constants.affine().b == 0 && op.constants.affine().f == 0);
  };
  const Program head = head_.view();
  return std::all_of(ops_.begin(), ops_.end(), scales) && std::all_of(head.ops, head.ops + head.size, scales);
}

bool PlaneSchedule::flip_symmetric() const {
  for (const PlaneOp& op : ops_) {
    const bool window = op.kind == PlaneOpKind::conv || op.kind == PlaneOpKind::pool;
    if (window && (op.out_w - 1) * op.stride_w + op.window_w - op.w != 2 * op.low_w) return false;
  }
  return true;
}

}  // namespace ntk
