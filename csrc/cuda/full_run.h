// A tile of pairs by full covariances on a Device (see image_run.h and vector_run.h): its program
// as passes, its tables, and room for as many blocks as fit.
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "full_pairs.h"

namespace ntk {

constexpr std::int64_t kMostFullBlocks = 1024;  // more do not run side by side

// A program as passes: affine and pointwise ops run where an entry is made.
template <class T>
class FullPlan {
 public:
  FullPlan(const FullProgram& program, const std::int64_t* offset)
      : sums(program.head.slots), program_(program), offset_(offset), pitch_(pitch_of<T>(program)) {
    for (int s = 0; s <= program.slots; ++s) held_.push_back({s, 0, false});
    held_[0] = {0, program.positions, program.diagonal};
    int i = append(Source::data, held_[0], held_[0], FullOp{}, 0);
    while (i < program.size) i = follow(i);
  }
  // Of the largest buffer.
  int most_rows() const {
    int most = 1;
    for (const FullPass& pass : passes)
      if (!pass.adds) most = std::max(most, pass.rows);
    return most;
  }

  std::vector<FullPass> passes;
  std::vector<FullStep<T>> steps;
  int sums;  // the head's slots, and those of relate

 private:
  // What a slot holds, and in which buffer; the last is a spare one.
  struct Held {
    int buffer, positions;
    bool diagonal;
    int rows() const { return diagonal ? 1 : positions; }
  };

  // Op number i, and those that run along; the number of the next.
  int follow(int i) {
    const FullOp& op = program_.ops[i];
    Held& held = held_[op.slot];
    const Held from = held;
    held.positions = op.positions;
    switch (op.kind) {
      case FullOpKind::affine:
      case FullOpKind::pointwise:
        return append(Source::entry, from, held, op, i);
      case FullOpKind::window:
        return append(Source::window, from, moved(held), op, i);
      case FullOpKind::linear:
        if (held.diagonal) return append(Source::weighted, from, moved(held), op, i + 1);
        passes.push_back(pass_of(Source::rows, from, held_.back(), op));
        passes.back().rows = op.positions;
        passes.back().cols = from.positions;
        return append(Source::columns, held_.back(), held, op, i + 1);
      case FullOpKind::copy:
      case FullOpKind::add:
      case FullOpKind::multiply:
        held.diagonal = held_[op.other].diagonal;
        return append(Source::joined, held, held, op, i + 1);
      case FullOpKind::diagonal:
        held.diagonal = true;
        return append(Source::diagonal, from, held, op, i + 1);
      case FullOpKind::spread:
        held.diagonal = false;
        return append(Source::spread, from, moved(held), op, i + 1);
      case FullOpKind::mix:
        push_own(Source::own_rows, from, held_.back(), op, i);
        return append(Source::own_columns, held_.back(), held, op, i + 1, offset_[i] * pitch_);
      case FullOpKind::embed:
        return append(Source::embedded, from, held, op, i + 1);
      case FullOpKind::relate:
        push_sums(from, op);
        return append(Source::related, from, held, op, i + 1);
      case FullOpKind::recur:
        return append(Source::recurred, from, held, op, i, offset_[i] * pitch_);
      case FullOpKind::readout:
      case FullOpKind::trace:
        read_out(op, held);
        break;
    }
    return i + 1;
  }

  // In the spare buffer, for what cannot be made in place.
  const Held& moved(Held& held) {
    std::swap(held.buffer, held_.back().buffer);
    return held;
  }

  // The pass of an op, and of those from number `next` on that change its entries one by one.
  int append(Source source, const Held& in, const Held& out, const FullOp& op, int next,
             std::int64_t features = 0) {
    FullPass pass = pass_of(source, in, out, op);
    pass.features = features;
    for (; next < program_.size && runs_along(program_.ops[next], op); ++next) push_step(next);
    pass.last = int(steps.size());
    passes.push_back(pass);
    return next;
  }
  static bool runs_along(const FullOp& op, const FullOp& first) {
    const bool step = op.kind == FullOpKind::pointwise || is_affine(op.kind) || recurs(op);
    const bool starts = op.kind == FullOpKind::window || recurs(op);
    return step && op.slot == first.slot && (!starts || &op == &first);
  }
  void push_step(int i) {
    const FullOp& op = program_.ops[i];
    const bool pointwise = op.kind == FullOpKind::pointwise || recurs(op);
    if (pointwise && !acts(op.pointwise)) return;
    const OpKind kind = pointwise ? OpKind::pointwise : OpKind::affine;
    steps.push_back({Step<T>(Op{kind, op.pointwise, 0, 0, op.constants}), offset_[i] * pitch_});
  }
  FullPass pass_of(Source source, const Held& in, const Held& out, const FullOp& op) const {
    const bool two = of_two_slots(op.kind) || op.kind == FullOpKind::relate;
    FullPass pass{};
    pass.source = source;
    pass.join = op.kind;
    pass.in = in.buffer;
    pass.other = two ? held_[op.other].buffer : 0;
    pass.out = out.buffer;
    pass.diagonal = in.diagonal;
    pass.rows = out.rows();
    pass.cols = out.positions;
    pass.first = pass.last = int(steps.size());
    pass.sum = sums - 1;
    if (op.kind == FullOpKind::window) pass.window = program_.windows[op.table];
    if (op.kind == FullOpKind::linear) pass.matrix = program_.matrices[op.table];
    if (recurs(op)) pass.a = weight_of_states(op);
    if (op.kind == FullOpKind::embed) {
      pass.grid = program_.grids[op.table];
      pass.a = op.constants.p[0];
      pass.b = op.constants.p[1];
    }
    return pass;
  }

  void push_own(Source source, const Held& in, const Held& out, const FullOp& op, int i) {
    passes.push_back(pass_of(source, in, out, op));
    passes.back().rows = passes.back().cols = op.positions;
    passes.back().features = offset_[i] * pitch_;
  }
  void push_sums(const Held& held, const FullOp& op) {
    ++sums;
    passes.push_back(pass_of(Source::products, held, held, op));
    passes.back().adds = true;
    passes.back().scale = 1;
  }

  void read_out(const FullOp& op, const Held& held) {
    const bool trace = op.kind == FullOpKind::trace;
    const Source source = trace && !held.diagonal ? Source::diagonal : Source::entry;
    passes.push_back(pass_of(source, held, held, op));
    if (trace) passes.back().rows = 1;
    passes.back().adds = true;
    passes.back().sum = op.other;
    passes.back().scale = op.constants.scale();
  }

  const FullProgram& program_;
  const std::int64_t* offset_;
  const std::int64_t pitch_;
  std::vector<Held> held_;
};

template <class T, class Device>
class FullRun {
 public:
  FullRun(const FullTile<T>& tile, Device& device)
      : tile_(tile), program_(tile.program), device_(device) {}

  void run() {
    const FullPlan<T> plan(program_, tile_.row_images.offset);
    FullPairsOp<T> op{};
    op.pairs = {tile_.rows, tile_.cols, tile_.diagonal};
    op.passes = uploaded_passes(plan.passes);
    op.pass_count = int(plan.passes.size());
    op.steps = uploaded(plan.steps);
    op.channels = program_.channels;
    op.mean = T(1.0 / program_.channels);
    op.buffer_count = program_.slots + 1;
    op.pitch = pitch_of<T>(program_);
    op.size = op.pitch * plan.most_rows();
    op.row_images = tile_.row_images;
    op.col_images = tile_.col_images;
    op.row = tile_.row;
    op.col = tile_.col;
    op.head = upload_head<T>(tile_, device_);
    const std::int64_t per_block = 2 * op.buffer_count * op.size;
    const std::int64_t fit = device_.budget() / (per_block * std::int64_t(sizeof(T)));
    const std::int64_t head = 2 * std::int64_t(op.head.slots);
    op.blocks = std::min({op.pairs.count(), kMostFullBlocks, std::max<std::int64_t>(1, fit)});
    op.workspace = device_.template take<T>(op.blocks * per_block);
    op.sum_count = plan.sums;
    op.sums = device_.template take<double>(2 * op.blocks * plan.sums);
    op.room = device_.template take<T>(op.blocks * head);
    device_.squares(op.blocks, op);
  }

 private:
  template <class S>
  const S* uploaded(const std::vector<S>& from) {
    return device_.upload(from.data(), std::int64_t(from.size()));
  }
  // Passes with their tables where the device can read.
  const FullPass* uploaded_passes(std::vector<FullPass> passes) {
    for (FullPass& pass : passes) {
      WindowTable& window = pass.window;
      MatrixTable& matrix = pass.matrix;
      if (pass.source == Source::embedded) {
        const std::int64_t size = pass.grid.positions;
        pass.grid.value = device_.upload(pass.grid.value, size * size);
      } else if (pass.source == Source::window) {
        window.source = device_.upload(window.source, std::int64_t(window.taps) * window.out);
      } else if (matrix.out > 0) {
        const int entries = matrix.start[matrix.out];
        matrix.start = device_.upload(matrix.start, matrix.out + 1);
        matrix.column = device_.upload(matrix.column, entries);
        matrix.value = device_.upload(matrix.value, entries);
      }
    }
    return uploaded(passes);
  }

  const FullTile<T>& tile_;
  const FullProgram& program_;
  Device& device_;
};

}  // namespace ntk
