// A tile of pairs of images on a Device (the GPU, or the host that stands in for it in tests): which ops run fused, what
// displacements each op needs, batches of pairs that fit into memory.
//
// Device offers take<T>(n): memory; upload(p, n): a copy the kernels can read; each(n, f): f(i) for all i < n;
// warps(n, f): f.run<Warp>(i) for n warps; budget(): bytes that a batch may take.
#pragma once

#include <algorithm>
#include <vector>

#include "../backend.h"
#include "pack_images.h"
#include "pairs.h"
#include "torus_chain.h"

namespace ntk {

// The head of the network on the read-outs of one pair.
template <class T>
struct HeadOp {
  Program head;
  PairTables<T> tables;
  std::int64_t row, col;  // first images of the tile
  Batch<T> batch;
  const double* readouts;  // [pair][slot][2]
  Sink<T> sink;

  NTK_HD void operator()(std::int64_t n) const {
    T K[kMostSlots], t[kMostSlots];
    for (int s = 0; s < head.slots; ++s) {
      K[s] = T(readouts[2 * (n * head.slots + s)]);
      t[s] = T(readouts[2 * (n * head.slots + s) + 1]);
    }
    const int i = batch.row[n], j = batch.col[n];
    run_pair(head, tables, row + i, col + j, K, t, [&](int output, T nngp, T ntk) { sink(output, i, j, nngp, ntk); });
  }
};

template <class T, class Device>
class ImageRun {
 public:
  ImageRun(const ImageTile<T>& tile, Device& device) : tile_(tile), program_(tile.program), device_(device) {
    find_chains();
    find_states();
    pack();
  }

  void run() {
    std::vector<int> row, col;
    for (int i = 0; i < tile_.rows; ++i)
      for (int j = tile_.diagonal ? i + 1 : 0; j < tile_.cols; ++j) row.push_back(i), col.push_back(j);
    const std::int64_t pairs = std::int64_t(row.size());
    if (pairs == 0) return;
    const std::int64_t most = std::max<std::int64_t>(1, device_.budget() / bytes_per_pair());
    allocate(std::min(pairs, most));
    const int *rows = device_.upload(row.data(), pairs), *cols = device_.upload(col.data(), pairs);
    for (std::int64_t first = 0; first < pairs; first += size_) {
      batch_.row = rows + first, batch_.col = cols + first;
      count_ = std::min(size_, pairs - first);
      run_batch();
    }
  }

 private:
  // Displacements held of one axis: list of them, and where each is.
  struct Held {
    std::vector<int> list, at;
    const int *device_list = nullptr, *device_at = nullptr;
  };
  // State of a slot after an op.
  struct Shape {
    int h, w;
    Held rows, cols;
    std::int64_t per_pair() const { return std::int64_t(h) * w * rows.list.size() * cols.list.size(); }
  };
  struct ChainPlan {
    int first, last;  // ops
    bool input;       // starts from the pixels
    int readout;      // the read-out that ends it, or -1
    bool bias;
    const ChainStep<T>* steps;
    int count;
  };

  static bool fits(const PlaneOp& op) { return std::max(op.h, op.w) <= (sizeof(T) == 4 ? 32 : 16); }
  bool is_conv3(int k) const {
    return program_.ops[k].kind == PlaneOpKind::conv && program_.ops[k].fast != FastPath::none && fits(program_.ops[k]);
  }
  int chain_at(int k) const {
    for (int c = 0; c < int(chains_.size()); ++c)
      if (chains_[c].first == k) return c;
    return -1;
  }

  // Maximal runs of 3x3 convolutions, with their ReLUs, of one slot.
  void find_chains() {
    in_chain_.assign(program_.size, -1);
    for (int k = 0; k < program_.size;) {
      if (!is_conv3(k)) {
        ++k;
        continue;
      }
      ChainPlan chain{k, k, k == 0, -1, false, nullptr, 0};
      const int slot = program_.ops[k].slot;
      while (k < program_.size && is_conv3(k) && program_.ops[k].slot == slot) {
        chain.bias |= program_.ops[k].p[1] > 0 || program_.ops[k].p[3] > 0;
        in_chain_[k] = int(chains_.size());
        ++k;
        if (k < program_.size && program_.ops[k].fast == FastPath::skipped) in_chain_[k++] = int(chains_.size());
      }
      chain.last = k;
      if (k + 1 == program_.size && ends_chain(program_.ops[k], slot)) chain.readout = k;
      chains_.push_back(chain);
    }
  }
  // May the read-out take plain sums of the chain's registers?
  bool ends_chain(const PlaneOp& op, int slot) const {
    const bool whole = op.window_h < 0 && op.window_w < 0;
    return op.kind == PlaneOpKind::readout && op.slot == slot && whole;
  }

  static bool plane_needed(const unsigned char* need, int start, std::int64_t d) {
    return d > -start && d < start && need[d + start - 1];
  }
  // Torus d holds the planes d and d - n; plane D of an image shrunk by `stride` is plane D stride at the start.
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
  Shape shape(const Segment& segment, int h, int w, std::pair<int, int> stride) {
    Shape s{h, w, held(segment.need_h, segment.h, h, stride.first), held(segment.need_w, segment.w, w, stride.second)};
    for (Held* axis : {&s.rows, &s.cols}) {
      axis->device_list = device_.upload(axis->list.data(), axis->list.size());
      axis->device_at = device_.upload(axis->at.data(), axis->at.size());
    }
    return s;
  }

  // The state's shape at each segment's start and after each op; an op that keeps its slot's shape repeats it.
  void find_states() {
    after_.resize(program_.size);
    for (int s = 0; s < program_.segment_count; ++s) {
      const Segment& segment = program_.segments[s];
      std::vector<std::pair<int, int>> stride(program_.slots, {1, 1});
      std::vector<Shape> now(program_.slots);
      start_.push_back(shape(segment, segment.h, segment.w, {1, 1}));
      now[0] = start_.back();
      for (int k = segment.first; k < segment.last; ++k) {
        const PlaneOp& op = program_.ops[k];
        if (op.kind == PlaneOpKind::conv) {
          stride[op.slot] = {capped_product(stride[op.slot].first, op.stride_h),
                             capped_product(stride[op.slot].second, op.stride_w)};
          if (op.fast == FastPath::none) now[op.slot] = shape(segment, op.out_h, op.out_w, stride[op.slot]);
        }
        if (op.kind == PlaneOpKind::copy) now[op.slot] = now[op.other], stride[op.slot] = stride[op.other];
        after_[k] = now[op.slot];
      }
    }
    for (const Shape& s : start_) most_ = std::max(most_, s.per_pair());
    for (const Shape& s : after_) most_ = std::max(most_, s.per_pair());
    stateful_ = !(chains_.size() == 1 && chains_[0].input && chains_[0].readout >= 0);
  }

  std::int64_t sums_per_pair() const {
    std::int64_t most = 1;
    for (const Shape& s : after_)
      most = std::max(most, std::int64_t(s.rows.list.size()) * std::int64_t(s.cols.list.size()) * s.w);
    return most;
  }
  std::int64_t bytes_per_pair() const {
    const std::int64_t states = stateful_ ? 2 * (program_.slots + 1) * most_ * std::int64_t(sizeof(T)) : 0;
    return states + std::int64_t(sizeof(double)) * (2 * sums_per_pair() + 2 * kLargest + 2 * program_.head.slots);
  }
  static constexpr int kLargest = 1024;  // side of an image

  void allocate(std::int64_t pairs) {
    size_ = pairs;
    for (int s = 0; stateful_ && s <= program_.slots; ++s) {
      buffers_.push_back(device_.template take<T>(pairs * most_));
      buffers_.push_back(device_.template take<T>(pairs * most_));
    }
    for (double*& sums : sums_) sums = device_.template take<double>(pairs * sums_per_pair());
    for (double*& sums : row_sums_) sums = device_.template take<double>(pairs * kLargest);
    readouts_ = device_.template take<double>(2 * pairs * program_.head.slots);
    const int outputs = program_.head.outputs;
    sink_ = {device_.upload(tile_.nngp, outputs), device_.upload(tile_.ntk, outputs),
             device_.upload(tile_.nngp_mirror, outputs), device_.upload(tile_.ntk_mirror, outputs), tile_.stride};
    head_ = program_.head;
    head_.ops = device_.upload(program_.head.ops, program_.head.size);
  }

  std::int64_t table_offset(int k) const { return 2 * tile_.row_images.offset[k]; }

  void pack() {
    std::int64_t table = 0;
    for (int k = 0; k < program_.size; ++k)
      if (holds(program_.ops[k])) table += 4 * std::int64_t(program_.ops[k].h) * program_.ops[k].w;
    batch_.row_images = packed(tile_.row_images, tile_.row, tile_.rows, table);
    const bool same = tile_.diagonal;
    batch_.col_images = same ? batch_.row_images : packed(tile_.col_images, tile_.col, tile_.cols, table);
    for (ChainPlan& chain : chains_) make_steps(chain);
    std::vector<T> seams(2 * kLargestSide + 1, T(1));
    seams[kLargestSide] = 0;
    seams_ = device_.upload(seams.data(), seams.size());
  }
  static bool holds(const PlaneOp& op) { return op.kind == PlaneOpKind::dual || op.kind == PlaneOpKind::normalize; }

  PackedImages<T> packed(const ImagesView<T>& from, std::int64_t first, std::int64_t count, std::int64_t table) {
    const std::int64_t pixels = std::int64_t(program_.h) * program_.w * program_.channels;
    T *const to_pixels = device_.template take<T>(count * pixels), *const to_table =
                                                                       device_.template take<T>(count * table + 1);
    device_.each(count * pixels, PackPixels<T>{from, first, pixels, to_pixels});
    for (int k = 0; k < program_.size; ++k) {
      const PlaneOp& op = program_.ops[k];
      if (!holds(op)) continue;
      T scale[2] = {1, 1};
      if (in_chain_[k] >= 0) {  // both images bring their half: a/9 without bias, and the ReLU's 1/2
        const bool bias = chains_[in_chain_[k]].bias;
        scale[0] = bias ? T(1) : T(std::sqrt(program_.ops[k - 1].p[0] / 9)), scale[1] = T(std::sqrt(0.5));
      }
      const std::int64_t size = 2 * std::int64_t(op.h) * op.w;
      const PackTable<T> job{from, first, tile_.row_images.offset[k], size, {scale[0], scale[1]}, to_table, table};
      device_.each(count * size, job);
    }
    return {to_pixels, to_table, pixels, table};
  }

  void make_steps(ChainPlan& chain) {
    std::vector<ChainStep<T>> steps;
    for (int k = chain.first; k < chain.last; ++k) {
      const PlaneOp& op = program_.ops[k];
      if (op.kind != PlaneOpKind::conv) continue;
      const bool relu = op.fast == FastPath::conv3_relu || op.fast == FastPath::conv3_relu_positive;
      const bool positive = op.fast == FastPath::conv3_relu_positive;
      const StepKind kind = !relu ? StepKind::affine : positive ? StepKind::relu_positive : StepKind::relu;
      steps.push_back({kind, T(op.p[0] / 9), T(op.p[1]), T(op.p[2] / 9), T(op.p[3]), ConvRelu<T>(op, chain.bias),
                       relu ? table_offset(k + 1) : 0});
    }
    chain.count = int(steps.size());
    chain.steps = device_.upload(steps.data(), steps.size());
  }

  // --- one batch

  Tori<T> tori(const Shape& s, int buffer) const {
    T* const k = stateful_ ? buffers_[2 * buffer] : nullptr;
    T* const t = stateful_ ? buffers_[2 * buffer + 1] : nullptr;
    return {k,
            t,
            s.h,
            s.w,
            int(s.rows.list.size()),
            int(s.cols.list.size()),
            s.rows.device_list,
            s.cols.device_list,
            s.rows.device_at,
            s.cols.device_at};
  }

  void run_batch() {
    device_.each(2 * count_ * program_.head.slots, Zero{readouts_});
    place_.resize(program_.slots + 1);
    for (int s = 0; s <= program_.slots; ++s) place_[s] = s;
    for (int s = 0; s < program_.segment_count; ++s) {
      const Segment& segment = program_.segments[s];
      now_.assign(program_.slots, Shape{});
      if (s > 0) run_pool(program_.ops[segment.first - 1], start_[s]);
      now_[0] = start_[s];
      if (s == 0 && !(!chains_.empty() && chains_[0].input)) {
        const Tori<T> out = tori(now_[0], place_[0]);
        device_.each(count_ * out.per_pair(), InputOp<T>{out, batch_, program_.channels});
      }
      for (int k = segment.first; k < segment.last; ++k) run_op(k);
      last_ = now_[0];
    }
    const PairTables<T> tables{tile_.row_images.head_table, tile_.col_images.head_table, tile_.row_images.head_stride,
                               tile_.col_images.head_stride};
    device_.each(count_, HeadOp<T>{head_, tables, tile_.row, tile_.col, batch_, readouts_, sink_});
  }

  void swap_spare(int slot) { std::swap(place_[slot], place_[program_.slots]); }

  void run_pool(const PlaneOp& op, const Shape& to) {
    const Tori<T> in = tori(last_, place_[0]), out = tori(to, place_[program_.slots]);
    device_.each(count_ * out.per_pair(), PoolOp<T>{op, in, out});
    swap_spare(0);
  }

  void run_op(int k) {
    const PlaneOp& op = program_.ops[k];
    const int slot = op.slot;
    if (in_chain_[k] >= 0) {
      if (const int c = chain_at(k); c >= 0) run_chain(chains_[c], now_[slot], place_[slot]);
      return;
    }
    const Tori<T> s = tori(now_[slot], place_[slot]);
    const std::int64_t elements = count_ * s.per_pair();
    if (op.kind == PlaneOpKind::conv) {
      const Tori<T> out = tori(after_[k], place_[program_.slots]);
      device_.each(count_ * out.per_pair(), ConvOp<T>{op, s, out});
      swap_spare(slot);
    } else if (op.kind == PlaneOpKind::dual) {
      visit_dual<T>(op.dual, op.p, [&](const auto& phi) {
        using Phi = std::decay_t<decltype(phi)>;
        device_.each(elements, DualOp<T, Phi>{phi, s, batch_, table_offset(k)});
      });
    } else if (op.kind == PlaneOpKind::normalize) {
      device_.each(elements, NormalizeOp<T>{s, batch_, table_offset(k)});
    } else if (op.kind == PlaneOpKind::copy || op.kind == PlaneOpKind::add) {
      const Tori<T> from = tori(now_[op.other], place_[op.other]), to = tori(after_[k], place_[slot]);
      device_.each(count_ * to.per_pair(), CopyOrAddOp<T>{op.kind == PlaneOpKind::add, to, from});
    } else if (op.kind == PlaneOpKind::readout && !(k > 0 && in_chain_[k - 1] >= 0 && fused_readout(k))) {
      const std::int64_t columns = std::int64_t(s.rows) * s.cols * s.w;
      device_.each(count_ * columns, ReadoutOp<T>{op, s, sums_[0], sums_[1]});
      add_up(op, s.rows, columns / s.rows);
    }
    now_[slot] = after_[k];
  }
  bool fused_readout(int k) const { return chains_[in_chain_[k - 1]].readout == k; }

  // Sums of all tori's parts: first within a row of displacements, then of the rows.
  void add_up(const PlaneOp& op, std::int64_t rows, std::int64_t parts) {
    for (int which = 0; which < 2; ++which) {
      device_.each(count_ * rows, SumOp{sums_[which], row_sums_[which], parts, 1, 1, false});
      double* const out = readouts_ + 2 * op.other + which;
      device_.each(count_, SumOp{row_sums_[which], out, rows, 2 * std::int64_t(program_.head.slots), op.p[0], true});
    }
  }

  void run_chain(const ChainPlan& chain, const Shape& shape, int buffer) {
    const int side = std::max(shape.h, shape.w);
    const bool exact = shape.h == shape.w;
    if (side <= 8)
      launch<8>(chain, shape, buffer, exact && side == 8);
    else if (side <= 16)
      launch<16>(chain, shape, buffer, exact && side == 16);
    else if constexpr (sizeof(T) == 4)
      launch<32>(chain, shape, buffer, exact && side == 32);
    if (chain.readout >= 0)
      add_up(program_.ops[chain.readout], std::int64_t(shape.rows.list.size()), std::int64_t(shape.cols.list.size()));
  }
  template <int kRows>
  void launch(const ChainPlan& chain, const Shape& shape, int buffer, bool exact) {
    if (exact)
      chain.bias ? launch<kRows, true, true>(chain, shape, buffer) : launch<kRows, true, false>(chain, shape, buffer);
    else
      chain.bias ? launch<kRows, false, true>(chain, shape, buffer) : launch<kRows, false, false>(chain, shape, buffer);
  }
  template <int kRows, bool kExact, bool kBias>
  void launch(const ChainPlan& chain, const Shape& shape, int buffer) {
    const Tori<T> s = tori(shape, buffer);
    const std::int64_t units = count_ * s.rows * s.cols;
    const bool sums = chain.readout >= 0;
    const TorusChain<T, kRows, kExact, kBias> job{chain.steps,
                                                  chain.count,
                                                  s,
                                                  units,
                                                  batch_,
                                                  program_.channels,
                                                  !chain.input,
                                                  sums ? sums_[0] : nullptr,
                                                  sums ? sums_[1] : nullptr,
                                                  seams_};
    device_.warps(job.warps(), job);
  }

  const ImageTile<T>& tile_;
  const PlaneProgram& program_;
  Device& device_;
  std::vector<ChainPlan> chains_;
  std::vector<int> in_chain_;         // per op: its chain or -1
  std::vector<Shape> start_, after_;  // per segment; per op
  std::int64_t most_ = 0, size_ = 0, count_ = 0;
  bool stateful_ = true;
  Batch<T> batch_{};
  std::vector<T*> buffers_;  // [slots + 1 spare] K, T
  std::vector<int> place_;   // per slot, and of the spare: its buffer
  std::vector<Shape> now_;   // per slot
  Shape last_{};
  double *sums_[2] = {}, *row_sums_[2] = {}, *readouts_ = nullptr;
  Sink<T> sink_{};
  Program head_{};
  const T* seams_ = nullptr;
};

}  // namespace ntk
