// A tile of pairs of images on a Device (the GPU, or the host that stands in for it in tests):
// tables, then batches of pairs that fit into memory.
//
// Device offers take<T>(n): memory; upload(p, n): a copy the kernels can read; each(n, f): f(i) for
// all i < n; each_of(pairs, n, f): f(pair, i) for all; warps(n, f): f.run<Warp>(i) for n warps;
// budget(): bytes a batch may take.
#pragma once

#include <algorithm>
#include <new>
#include <vector>

#include "../backend.h"
#include "image_plan.h"
#include "pack_images.h"
#include "pairs.h"

namespace ntk {

// The head of the network on the read-outs of one pair.
template <class T>
struct HeadOp {
  Head<T> head;
  Batch<T> batch;
  const double* readouts;  // [pair][slot][2]
  T* room;                 // [pair][2][slot]

  NTK_HD void operator()(std::int64_t n) const {
    const std::int64_t at = 2 * n * head.slots;
    head.run(readouts + at, batch.row[n], batch.col[n], room + at);
  }
};

// The images of a tile's pairs, row by row; of a diagonal tile right of the diagonal.
struct ListPairs {
  std::int64_t cols;
  bool diagonal;
  int *row, *col;

  NTK_HD void operator()(std::int64_t n) const {
    const std::int64_t i = n / cols, j = n % cols;
    if (diagonal && j <= i) return;
    const std::int64_t at = diagonal ? i * (2 * cols - i - 1) / 2 + j - i - 1 : n;
    row[at] = int(i);
    col[at] = int(j);
  }
};

template <class T, class Device>
class ImageRun {
 public:
  ImageRun(const ImageTile<T>& tile, Device& device)
      : tile_(tile), program_(tile.program), device_(device), plan_(tile.program) {
    for (auto* shapes : {&plan_.start, &plan_.after})
      for (TorusShape& shape : *shapes)
        for (Held* axis : {&shape.rows, &shape.cols}) {
          axis->device_list = device_.upload(axis->list.data(), axis->list.size());
          axis->device_at = device_.upload(axis->at.data(), axis->at.size());
        }
    for (const ChainPlan& chain : plan_.chains) {
      const PlaneOp& op = program_.ops[chain.first];
      const int rows = chain_rows<T>(op.h, op.w);
      joins_.push_back(joins(op.h, (op.h + rows - 1) / rows * rows));
    }
    batch_.row_images = packed(tile_.row_images, tile_.row, tile_.rows);
    batch_.col_images =
        tile_.diagonal ? batch_.row_images : packed(tile_.col_images, tile_.col, tile_.cols);
  }

  void run() {
    const std::int64_t all = tile_.rows * tile_.cols;
    const std::int64_t pairs = tile_.diagonal ? tile_.rows * (tile_.rows - 1) / 2 : all;
    if (pairs == 0) return;
    allocate(std::min(pairs, most_pairs()));
    int *const rows = device_.template take<int>(pairs), *const cols =
                                                             device_.template take<int>(pairs);
    device_.each(all, ListPairs{tile_.cols, tile_.diagonal, rows, cols});
    for (std::int64_t first = 0; first < pairs; first += size_) {
      batch_.row = rows + first;
      batch_.col = cols + first;
      count_ = std::min(size_, pairs - first);
      run_batch();
    }
  }

 private:
  // --- memory

  // Pairs of a batch: by memory, and so that tori and the elements of a pair can be numbered by
  // int.
  std::int64_t most_pairs() const {
    constexpr std::int64_t kInt = 0x7fffffff;
    if (plan_.state_per_pair() > kInt) throw std::bad_alloc();
    const std::int64_t states =
        plan_.stateful()
            ? 2 * (program_.slots + 1) * plan_.state_per_pair() * std::int64_t(sizeof(T))
            : 0;
    const std::int64_t sums =
        2 * (plan_.sums_per_pair() + plan_.rows_per_pair() + 2 * program_.head.slots);
    std::int64_t most = device_.budget() / (states + sums * std::int64_t(sizeof(double)));
    for (const TorusShape& s : plan_.after)
      most = std::min(most, kInt / std::max<std::int64_t>(1, s.tori()));
    return std::max<std::int64_t>(1, most);
  }

  void allocate(std::int64_t pairs) {
    size_ = pairs;
    for (int s = 0; plan_.stateful() && s < 2 * (program_.slots + 1); ++s)
      buffers_.push_back(device_.template take<T>(pairs * plan_.state_per_pair()));
    for (double*& sums : sums_) sums = device_.template take<double>(pairs * plan_.sums_per_pair());
    for (double*& sums : row_sums_)
      sums = device_.template take<double>(pairs * plan_.rows_per_pair());
    readouts_ = device_.template take<double>(2 * pairs * program_.head.slots);
    room_ = device_.template take<T>(2 * pairs * program_.head.slots);
    head_ = upload_head<T>(tile_, device_);
  }

  PackedImages<T> packed(const ImagesView<T>& from, std::int64_t first, std::int64_t count) {
    const PairLayout layout = pair_layout<T>(program_.h, program_.w);
    const std::int64_t pixels = std::int64_t(layout.size()) * program_.channels,
                       table = plan_.table_size;
    T* const to_pixels = device_.template take<T>(count * pixels);
    T* const to_table = device_.template take<T>(count * table);
    for (int c = 0; c < program_.channels; ++c)
      device_.each_of(
          count, layout.size(),
          PackPairs<T>{from.pixels, from.pixels_stride, first, c, program_.channels, program_.h,
                       program_.w, T(1), to_pixels + std::int64_t(c) * layout.size(), pixels});
    for (int k = 0; k < program_.size; ++k) {
      const PlaneOp& op = program_.ops[k];
      const int numbers = int(feature_count(op));
      if (numbers == 0) continue;
      const std::int64_t offset = tile_.row_images.offset[k];
      T* const to = to_table + plan_.table_at[k];
      if (plan_.in_chain[k] >= 0)  // of the second feature, sqrt(q)
        device_.each_of(count, plan_.layout(k).size(),
                        PackPairs<T>{from.table, from.table_stride, first, offset + 1, 2, op.h,
                                     op.w, T(std::sqrt(0.5)), to, table});
      else
        device_.each_of(count, numbers, PackTable<T>{from, first, offset, numbers, to, table});
    }
    return {to_pixels, to_table, pixels, table};
  }
  // What the state before op k of a chain is held times: a/18 before a convolution with ReLU and
  // without bias.
  double held_times(const ChainPlan& chain, int k) const {
    const bool relu =
        k < chain.last && program_.ops[k].kind == PlaneOpKind::conv && has_relu(program_.ops[k]);
    return relu && !chain.bias ? of_window_sums(program_.ops[k]).a / 2 : 1;
  }
  static bool has_relu(const PlaneOp& conv) {
    return conv.fast == FastPath::conv3_relu || conv.fast == FastPath::conv3_relu_positive;
  }
  // The chain's layers; how many.
  int steps_of(const ChainPlan& chain, ChainStep<T>* steps) const {
    int n = 0;
    for (int k = chain.first; k < chain.last; ++k) {
      const PlaneOp& op = program_.ops[k];
      if (op.kind != PlaneOpKind::conv) continue;
      const Affine<double> map = of_window_sums(op);
      if (!has_relu(op)) {
        const double next = held_times(chain, k + 1);
        const Affine<double> u{next * map.a, next * map.b, next * map.e, next * (map.f + map.b)};
        steps[n++] = {StepKind::affine, u.as<T>(), T(1), T(0), 0};
        continue;
      }
      const double next = held_times(chain, k + 2);
      const bool positive = op.fast == FastPath::conv3_relu_positive;
      steps[n++] = {positive ? StepKind::relu_positive : StepKind::relu,
                    {T(map.a / 2), T(map.b / 2), T(0), T(0)},
                    T(next),
                    T(next / kPi),
                    plan_.table_at[k + 1]};
    }
    return n;
  }

  // Of a torus at displacement dh: does row r - 1 count for row r? [dh][r], r up to `rows`; none at
  // dh = h.
  const T* joins(int h, int rows) {
    std::vector<T> table;
    for (int dh = 0; dh <= h; ++dh)
      for (int r = 0; r <= rows; ++r) table.push_back(T(dh < h && r > 0 && r < h && r != h - dh));
    return device_.upload(table.data(), std::int64_t(table.size()));
  }

  Tori<T> tori(const TorusShape& s, int buffer) const {
    const bool held = plan_.stateful();
    return {held ? buffers_[2 * buffer] : nullptr,
            held ? buffers_[2 * buffer + 1] : nullptr,
            s.h,
            s.w,
            int(s.rows.list.size()),
            int(s.cols.list.size()),
            s.rows.device_list,
            s.cols.device_list,
            s.rows.device_at,
            s.cols.device_at};
  }

  // --- one batch

  void run_batch() {
    device_.each(2 * count_ * program_.head.slots, Zero{readouts_});
    place_.resize(program_.slots + 1);
    for (int s = 0; s <= program_.slots; ++s) place_[s] = s;
    for (int s = 0; s < program_.segment_count; ++s) {
      const Segment& segment = program_.segments[s];
      now_.assign(program_.slots, TorusShape{});
      if (s > 0) run_pool(segment.first - 1, plan_.start[s]);
      now_[0] = plan_.start[s];
      if (s == 0 && !plan_.chain_at(0)) {
        const Tori<T> out = tori(now_[0], place_[0]);
        device_.each_of(count_, int(out.per_pair()), InputOp<T>{out, batch_, program_.channels});
      }
      for (int k = segment.first; k < segment.last; ++k) run_op(k);
      last_ = now_[0];
    }
    device_.each(count_, HeadOp<T>{head_, batch_, readouts_, room_});
  }

  void swap_spare(int slot) { std::swap(place_[slot], place_[program_.slots]); }

  void run_pool(int k, const TorusShape& to) {
    const PlaneOp& op = program_.ops[k];
    const Tori<T> in = tori(last_, place_[0]), out = tori(to, place_[program_.slots]);
    const int elements = int(out.per_pair());
    if (plan_.fused_pool(k))
      device_.each_of(count_, elements, PoolPartsOp<T>{in, out, T(op.constants.scale())});
    else
      device_.each_of(count_, elements, PoolOp<T>{op, in, out});
    swap_spare(0);
  }

  void run_op(int k) {
    const PlaneOp& op = program_.ops[k];
    const int slot = op.slot;
    if (plan_.in_chain[k] >= 0) {
      if (plan_.chain_at(k)) run_chain(plan_.in_chain[k], now_[slot], place_[slot]);
      return;
    }
    const Tori<T> s = tori(now_[slot], place_[slot]);
    const int elements = int(s.per_pair());
    if (op.kind == PlaneOpKind::conv) {
      const Tori<T> out = tori(plan_.after[k], place_[program_.slots]);
      device_.each_of(count_, int(out.per_pair()),
                      ConvOp<T>{op, of_window_sums(op).as<T>(), s, out});
      swap_spare(slot);
    } else if (op.kind == PlaneOpKind::pointwise && acts(op.pointwise)) {
      visit_pointwise<T>(op.pointwise, op.constants, [&](const auto& phi) {
        using Phi = std::decay_t<decltype(phi)>;
        device_.each_of(count_, elements,
                        PointwiseOp<T, Phi>{phi, s, batch_, plan_.table_at[k], pixel_features(op)});
      });
    } else if (of_two_slots(op.kind)) {
      const Tori<T> from = tori(now_[op.other], place_[op.other]),
                    to = tori(plan_.after[k], place_[slot]);
      device_.each_of(count_, int(to.per_pair()), CombineOp<T>{op.kind, to, from});
    } else if (op.kind == PlaneOpKind::readout && !plan_.fused_readout(k)) {
      const int columns = s.rows * s.cols * s.w;
      device_.each_of(count_, columns, ReadoutOp<T>{op, s, sums_[0], sums_[1]});
      add_up(op, s.rows, columns / s.rows);
    }
    now_[slot] = plan_.after[k];
  }

  // Sums of all tori's parts: first within a row of displacements, then of the rows.
  void add_up(const PlaneOp& op, std::int64_t rows, std::int64_t parts) {
    for (int which = 0; which < 2; ++which) {
      device_.each(count_ * rows, SumOp{sums_[which], row_sums_[which], parts, 1, 1, false});
      double* const out = readouts_ + 2 * op.other + which;
      device_.each(count_, SumOp{row_sums_[which], out, rows, 2 * std::int64_t(program_.head.slots),
                                 op.constants.scale(), true});
    }
  }

  void run_chain(int number, const TorusShape& shape, int buffer) {
    const ChainPlan& chain = plan_.chains[number];
    const Tori<T> s = tori(shape, buffer);
    chain.bias ? launch<true>(number, s) : launch<false>(number, s);
    if (chain.readout >= 0)
      add_up(program_.ops[chain.readout], std::int64_t(shape.rows.list.size()),
             std::int64_t(shape.cols.list.size()));
  }
  template <bool kBias>
  void launch(int number, const Tori<T>& s) {
    const int side = s.h == s.w ? s.h : 0;
    if constexpr (sizeof(T) == 4) {
      if (side == 8) return launch<8, kBias>(number, s);
      if (side == 16) return launch<16, kBias>(number, s);
      if (side == 32 && plan_.steps(number) <= kFewSteps) return launch<32, kBias, true>(number, s);
      if (side == 32) return launch<32, kBias>(number, s);
    }
    launch<0, kBias>(number, s);
  }
  template <int kSide, bool kBias, bool kShort = false>
  void launch(int number, const Tori<T>& s) {
    const ChainPlan& chain = plan_.chains[number];
    TorusChain<T, kSide, kBias, kShort> job{};
    job.s = s;
    job.joins = joins_[number];
    job.units = int(count_ * s.rows * s.cols);
    job.batch = batch_;
    job.channels = program_.channels;
    job.first = T(held_times(chain, chain.first));
    job.load = !chain.input;
    job.output = chain.readout >= 0 ? ChainOutput::sums
                 : chain.pooled     ? ChainOutput::pooled
                                    : ChainOutput::state;
    job.sum_k = sums_[0];
    job.sum_t = sums_[1];
    job.count = steps_of(chain, job.steps);
    device_.warps(job.warps(), job);
  }

  const ImageTile<T>& tile_;
  const PlaneProgram& program_;
  Device& device_;
  ImagePlan<T> plan_;
  std::vector<const T*> joins_;        // per chain
  std::int64_t size_ = 0, count_ = 0;  // pairs of a batch, and of this one
  Batch<T> batch_{};
  std::vector<T*> buffers_;      // [slots + 1 spare] K, T
  std::vector<int> place_;       // per slot, and of the spare: its buffer
  std::vector<TorusShape> now_;  // per slot
  TorusShape last_{};
  double *sums_[2] = {}, *row_sums_[2] = {}, *readouts_ = nullptr;
  T* room_ = nullptr;  // of the head
  Head<T> head_{};
};

}  // namespace ntk
