// What a program of images needs on the GPU, whatever the images: which ops run as chains in
// registers, which displacements the state holds after each op, how large everything is.
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "tori.h"
#include "torus_chain.h"

namespace ntk {

// Displacements held of one axis: list of them, and where each is.
struct Held {
  std::vector<int> list, at;
  const int *device_list = nullptr, *device_at = nullptr;
};

// State of a slot after an op.
struct TorusShape {
  int h, w;
  Held rows, cols;

  std::int64_t tori() const {
    return std::int64_t(rows.list.size()) * std::int64_t(cols.list.size());
  }
  std::int64_t per_pair() const { return std::int64_t(h) * w * tori(); }
};

// A maximal run of 3x3 convolutions, with their ReLUs, of one slot: ops [first, last).
struct ChainPlan {
  int first, last;
  bool input;  // starts from the pixels
  bool bias;
  int readout;  // the read-out that ends it, or -1
  bool pooled;  // ends as the partial sums of a pool
};

template <class T>
class ImagePlan {
 public:
  explicit ImagePlan(const PlaneProgram& program) : program_(program) {
    find_shapes();
    find_chains();
    for (int k = 0; k < program.size; ++k) {
      table_at.push_back(program.ops[k].constants.number > 0 ? table_at.back() + 2 : table_size);
      table_size += features(k);
    }
  }

  std::vector<ChainPlan> chains;
  std::vector<int> in_chain;             // per op: its chain or -1
  std::vector<TorusShape> start, after;  // per segment, at its start; per op
  std::vector<std::int64_t> table_at;    // per op: where its features start in an image's table
  std::int64_t table_size = 0;

  // The chain that starts at op k, or null.
  const ChainPlan* chain_at(int k) const {
    const bool starts = k < program_.size && in_chain[k] >= 0 && chains[in_chain[k]].first == k;
    return starts ? &chains[in_chain[k]] : nullptr;
  }
  // Convolutions of a chain.
  int steps(int chain) const {
    int n = 0;
    for (int k = chains[chain].first; k < chains[chain].last; ++k)
      n += program_.ops[k].kind == PlaneOpKind::conv;
    return n;
  }
  PairLayout layout(int k) const { return pair_layout<T>(program_.ops[k].h, program_.ops[k].w); }
  // Is there a state in memory at all?
  bool stateful() const {
    return !(chains.size() == 1 && chains[0].input && chains[0].readout >= 0);
  }
  // The largest state, in numbers of K.
  std::int64_t state_per_pair() const {
    std::int64_t most = 0;
    for (const auto* shapes : {&start, &after})
      for (const TorusShape& s : *shapes) most = std::max(most, s.per_pair());
    return most;
  }
  // Most partial sums of a read-out, and most rows of displacements they are of.
  std::int64_t sums_per_pair() const {
    return most_of_readouts(
        [&](int k) { return after[k].tori() * (fused_readout(k) ? 1 : after[k].w); });
  }
  std::int64_t rows_per_pair() const {
    return most_of_readouts([&](int k) { return std::int64_t(after[k].rows.list.size()); });
  }
  // Does the chain before op k, a read-out or a pool, leave its sums?
  bool fused_readout(int k) const { return ends_chain(k) && chains[in_chain[k - 1]].readout == k; }
  bool fused_pool(int k) const { return ends_chain(k) && chains[in_chain[k - 1]].pooled; }

 private:
  bool ends_chain(int k) const { return k > 0 && in_chain[k - 1] >= 0; }
  std::int64_t features(int k) const {
    const std::int64_t count = feature_count(program_.ops[k]);
    return count > 0 && in_chain[k] >= 0 ? layout(k).size() : 2 * count;
  }
  template <class F>
  std::int64_t most_of_readouts(const F& f) const {
    std::int64_t most = 1;
    for (int k = 0; k < program_.size; ++k)
      if (program_.ops[k].kind == PlaneOpKind::readout) most = std::max(most, f(k));
    return most;
  }

  bool is_conv3(int k) const {
    const PlaneOp& op = program_.ops[k];
    return op.kind == PlaneOpKind::conv && op.fast != FastPath::none &&
           std::max(op.h, op.w) <= kLargestSide<T>;
  }

  void find_chains() {
    in_chain.assign(program_.size, -1);
    for (int k = 0; k < program_.size;) {
      if (!is_conv3(k)) {
        ++k;
        continue;
      }
      ChainPlan chain{k, k, k == 0, false, -1, false};
      const int slot = program_.ops[k].slot;
      for (int n = 0;
           n < kMostSteps<T> && k < program_.size && is_conv3(k) && program_.ops[k].slot == slot;
           ++n) {
        const Affine<double> map = program_.ops[k].constants.affine();
        chain.bias |= map.b > 0 || map.f > 0;
        in_chain[k++] = int(chains.size());
        if (k < program_.size && program_.ops[k].fast == FastPath::skipped)
          in_chain[k++] = int(chains.size());
      }
      chain.last = k;
      if (k + 1 == program_.size && program_.ops[k].slot == slot && sums_all(k)) chain.readout = k;
      chain.pooled = k < program_.size && slot == 0 && is_pool2(program_.ops[k]);
      chains.push_back(chain);
    }
  }
  // Is op k a read-out of plain sums of all that is held?
  bool sums_all(int k) const {
    const PlaneOp& op = program_.ops[k];
    if (op.kind != PlaneOpKind::readout) return false;
    return (op.window_h < 0 && op.window_w < 0) ||
           (op.window_h == 0 && op.window_w == 0 && after[k].tori() == 1);
  }
  static bool is_pool2(const PlaneOp& op) {
    const bool twos = op.window_h == 2 && op.window_w == 2 && op.stride_h == 2 && op.stride_w == 2;
    return op.kind == PlaneOpKind::pool && twos && op.low_h == 0 && op.low_w == 0 &&
           op.h == 2 * op.out_h && op.w == 2 * op.out_w;
  }

  static bool plane_needed(const unsigned char* need, int start, std::int64_t d) {
    return d > -start && d < start && need[d + start - 1];
  }
  // Torus d holds the planes d and d - n; plane D of an image shrunk by `stride` is plane D stride
  // at the start.
  static Held held(const unsigned char* need, int start, int n, int stride) {
    Held out;
    out.at.assign(n, -1);
    for (int d = 0; d < n; ++d)
      if (plane_needed(need, start, std::int64_t(d) * stride) ||
          plane_needed(need, start, std::int64_t(d - n) * stride)) {
        out.at[d] = int(out.list.size());
        out.list.push_back(d);
      }
    return out;
  }
  static TorusShape shape(const Segment& segment, int h, int w, std::pair<int, int> stride) {
    return {h, w, held(segment.need_h, segment.h, h, stride.first),
            held(segment.need_w, segment.w, w, stride.second)};
  }

  // An op that keeps its slot's shape repeats it.
  void find_shapes() {
    after.resize(program_.size);
    for (int s = 0; s < program_.segment_count; ++s) {
      const Segment& segment = program_.segments[s];
      Strides strides(program_.slots);
      std::vector<TorusShape> now(program_.slots);
      start.push_back(shape(segment, segment.h, segment.w, {1, 1}));
      now[0] = start.back();
      for (int k = segment.first; k < segment.last; ++k) {
        const PlaneOp& op = program_.ops[k];
        strides.follow(op);
        if (op.kind == PlaneOpKind::conv && op.fast == FastPath::none)
          now[op.slot] = shape(segment, op.out_h, op.out_w, strides.of(op.slot));
        if (op.kind == PlaneOpKind::copy) now[op.slot] = now[op.other];
        after[k] = now[op.slot];
      }
    }
  }

  const PlaneProgram& program_;
};

}  // namespace ntk
