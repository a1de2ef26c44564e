// Tiles of pairs of vectors in squares, a block of threads each. Neighbouring threads have
// neighbouring columns, and a thread several rows: accesses of a warp lie side by side whatever the
// alignment, and what depends on the column is read once. Mirror images go through shared memory,
// so that they lie side by side as well.
#pragma once

#include "../math/relu_chain.h"
#include "block.h"
#include "pairs.h"

namespace ntk {

struct Range {
  int from, to;
  NTK_HD bool has(int l) const { return from <= l && l < to; }
};

template <int kSideOf, int kRowsOf>
struct Square {
  static constexpr int kSide = kSideOf, kRows = kRowsOf, kThreads = kSide * kSide / kRows;

  std::int64_t row, col;  // its first pair within the tile
  int height, width;      // its part within the tile
  bool upper;             // only pairs right of the diagonal are wanted

  // A thread's column and its first row within the square.
  static NTK_HD int column(int thread) { return thread % kSide; }
  static NTK_HD int first(int thread) { return thread / kSide * kRows; }
  // Which of a thread's rows are wanted.
  NTK_HD Range wanted(int thread) const {
    const int c = column(thread), most = upper && c < height ? c : height;
    return {0, c < width ? most - first(thread) : 0};
  }
  // The same of the mirror image, where a thread's column is a row of the square, and its rows are
  // columns.
  NTK_HD Range wanted_in_mirror(int thread) const {
    const int r = column(thread);
    return {upper ? r + 1 - first(thread) : 0, r < height ? width - first(thread) : 0};
  }
  // from[l * step] of a thread's rows, and 0 for those outside of the tile.
  template <class T>
  NTK_HD Pack<T, kRows> load(int thread, const T* from, std::int64_t step) const {
    const int inside = column(thread) < width ? height - first(thread) : 0;
    Pack<T, kRows> out;
    for (int l = 0; l < kRows; ++l, from += step) out.v[l] = l < inside ? *from : T(0);
    return out;
  }
};

// The squares of a tile, row by row; in a diagonal tile those left of the diagonal are empty.
template <class Square>
struct Squares {
  static constexpr int kSide = Square::kSide;
  std::int64_t rows, cols;
  bool diagonal;

  NTK_HD std::int64_t across() const { return (cols + kSide - 1) / kSide; }
  std::int64_t count() const { return (rows + kSide - 1) / kSide * across(); }
  NTK_HD Square at(unsigned n) const {
    const unsigned wide = unsigned(across()), down = n / wide;
    const std::int64_t row = std::int64_t(down) * kSide,
                       col = std::int64_t(n - down * wide) * kSide;
    return {row, col, diagonal && row > col ? 0 : part(rows - row), part(cols - col),
            diagonal && row == col};
  }
  static NTK_HD int part(std::int64_t left) { return left < kSide ? int(left) : kSide; }
};

// One value of every pair of a square; a row more than it needs, so that a column meets all banks.
template <class T, int kSide>
struct Stage {
  T values[kSide][kSide + 1];
};

// Writes value(thread), a Pack of its rows, to the tile at `out` and its mirror image to that at
// `mirror`, if any.
template <class Block, class T, class Square, class Value>
NTK_HD void store_square(const Square& at, T* out, T* mirror, std::int64_t stride,
                         Stage<T, Square::kSide>& stage, const Value& value) {
  constexpr int kRows = Square::kRows;
  if (!out) return;
  Block::each([&](int thread) {
    const auto values = value(thread);
    const int first = Square::first(thread), c = Square::column(thread);
    const Range wanted = at.wanted(thread);
    T* to = out + (at.row + first) * stride + at.col + c;
    for (int l = 0; l < kRows; ++l, to += stride) {
      if (wanted.has(l)) *to = values.v[l];
      if (mirror) stage.values[first + l][c] = values.v[l];
    }
  });
  if (!mirror) return;
  Block::sync();
  Block::each([&](int thread) {
    const int first = Square::first(thread), r = Square::column(thread);
    const Range wanted = at.wanted_in_mirror(thread);
    T* to = mirror + (at.col + first) * stride + at.row + r;
    for (int l = 0; l < kRows; ++l, to += stride)
      if (wanted.has(l)) *to = stage.values[r][first + l];
  });
  Block::sync();
}

// Both results of an output that are wanted.
template <class Block, class T, class Square, class Nngp, class Ntk>
NTK_HD void store_both(const Square& at, const Results<T>& to, int output,
                       Stage<T, Square::kSide>& stage, const Nngp& nngp, const Ntk& ntk) {
  store_square<Block>(at, to.nngp[output], to.nngp_mirror[output], to.stride, stage, nngp);
  store_square<Block>(at, to.ntk[output], to.ntk_mirror[output], to.stride, stage, ntk);
}

// Blocks a multiprocessor must hold: 64 registers a thread, or 128.
template <class T>
constexpr int square_blocks(int threads) {
  return 4096 / int(sizeof(T)) / threads;
}

// values[at] = value, for values in registers, which have no index.
template <class T, int n>
NTK_HD void set_element(T (&values)[n], int at, T value) {
  for (int k = 0; k < n; ++k) values[k] = k == at ? value : values[k];
}

// What the kernels of a tile share.
template <class T, class Square>
struct SquareJob {
  PointsView<T> row_points, col_points;
  std::int64_t row, col;
  const T* dot;
  std::int64_t dot_stride;
  Squares<Square> squares;
  Results<T> results;

  // Numbers of a thread's first row and of its column among the points.
  NTK_HD std::int64_t first_row(const Square& at, int thread) const {
    return row + at.row + Square::first(thread);
  }
  NTK_HD std::int64_t column(const Square& at, int thread) const {
    return col + at.col + Square::column(thread);
  }
  NTK_HD Pack<T, Square::kRows> dots(const Square& at, int thread) const {
    const std::int64_t i = at.row + Square::first(thread), j = at.col + Square::column(thread);
    return at.load(thread, dot + i * dot_stride + j, dot_stride);
  }
  // Values of the points of a thread's rows, and of its column's.
  NTK_HD Pack<T, Square::kRows> of_rows(const Square& at, int thread, const T* values) const {
    return at.load(thread, values + first_row(at, thread), 1);
  }
  NTK_HD T of_column(const Square& at, int thread, const T* values) const {
    return Square::column(thread) < at.width ? values[column(at, thread)] : T(0);
  }
};

// A ReLU network (relu_chain.h) in registers.
template <class T, bool kNtk>
struct ChainOp {
  using At = Square<32, 8>;
  using Shared = Stage<T, At::kSide>;
  using P = Pack<T, At::kRows>;
  static constexpr int kThreads = At::kThreads, kBlocks = square_blocks<T>(kThreads);
  struct State {
    P y, t;
  };
  SquareJob<T, At> job;
  Chain<T> chain;

  template <class Block>
  NTK_HD void run(unsigned n, Shared& stage) const {
    const At at = job.squares.at(n);
    if (at.height == 0) return;
    typename Block::template Own<State> own;
    Block::each([&](int thread) { own[thread] = start(at, thread); });
    for (const ChainLayer<T>* layer = chain.layers; layer != chain.layers + chain.depth; ++layer) {
      for (int steps = layer->run; steps > 0; --steps, ++layer)
        Block::each([&](int thread) { plain_relu_step<T, kNtk>(own[thread].y, own[thread].t); });
      Block::each([&](int thread) { step(*layer, at, thread, own[thread]); });
      for (int e = 0; e < layer->emit_count; ++e)
        emit<Block>(layer->relu, layer->emits[e], at, own, stage);
    }
  }

  NTK_HD State start(const At& at, int thread) const {
    P y = T(1) - job.dots(at, thread);
    T nearest = y.v[0];
    for (const T value : y.v) nearest = min(nearest, value);
    if (nearest < T(kNear) && job.row_points.unit != nullptr) refine(at, thread, y);
    return {y, chain.eps * (T(1) - y)};
  }
  NTK_HD void refine(const At& at, int thread, P& y) const {
    const Range wanted = at.wanted(thread);
    unsigned near = 0;
    for (int l = 0; l < At::kRows; ++l) near |= unsigned(wanted.has(l) && y.v[l] < T(kNear)) << l;
    const std::int64_t width = job.row_points.width, row = job.first_row(at, thread),
                       col = job.column(at, thread);
    const T *u = job.row_points.unit + row * width, *v = job.col_points.unit + col * width;
    for (int l = 0; near >> l != 0; ++l)
      if (near >> l & 1) set_element(y.v, l, half_squared_distance(u + l * width, v, width));
  }

  NTK_HD void step(const ChainLayer<T>& layer, const At& at, int thread, State& own) const {
    const ChainAffine<T>& s = layer.affine;
    if (s.bias)
      affine_step<T, kNtk>(s.phi, job.of_rows(at, thread, s.row_alpha),
                           job.of_rows(at, thread, s.row_beta),
                           spread(job.of_column(at, thread, s.col_alpha)),
                           spread(job.of_column(at, thread, s.col_beta)), own.y, own.t);
    any_relu_step<T, kNtk>(layer.relu, own.y, own.t);
  }

  template <class Block, class Own>
  NTK_HD void emit(const ChainRelu<T>& relu, const ChainEmit<T>& out, const At& at, Own& own,
                   Shared& stage) const {
    const auto root = [&](int thread) {
      return relu.scale * job.of_rows(at, thread, relu.row_root) *
             job.of_column(at, thread, relu.col_root);
    };
    const auto K = [&](int thread, const P& root) { return root * (T(1) - own[thread].y); };
    const auto nngp = [&](int thread) { return out.map.nngp(K(thread, root(thread))); };
    const auto ntk = [&](int thread) {
      const P r = root(thread);
      return out.map.ntk(K(thread, r), P(r * own[thread].t));
    };
    const Results<T>& to = job.results;
    if (kNtk)
      store_both<Block>(at, to, out.output, stage, nngp, ntk);
    else
      store_square<Block>(at, to.nngp[out.output], to.nngp_mirror[out.output], to.stride, stage,
                          nngp);
  }

  static NTK_HD P spread(T value) {
    P out;
    for (T& v : out.v) v = value;
    return out;
  }
};

// Any program of at most kSlots slots: few of them stay in registers, many lie in memory.
template <class T, int kSlots>
struct ProgramOp {
  static constexpr bool kFew = kSlots <= 2;
  using At = Square<kFew ? 32 : 16, kFew ? 16 / int(sizeof(T)) : 1>;
  using Shared = Stage<T, At::kSide>;
  using P = Pack<T, At::kRows>;
  static constexpr int kThreads = At::kThreads, kBlocks = square_blocks<T>(kThreads);
  struct State {
    P K[kSlots], t[kSlots];
  };
  SquareJob<T, At> job;
  Steps<T> program;

  template <class Block>
  NTK_HD void run(unsigned n, Shared& stage) const {
    const At at = job.squares.at(n);
    if (at.height == 0) return;
    typename Block::template Own<State> own;
    Block::each([&](int thread) {
      if constexpr (kFew) own[thread] = {};
      own[thread].K[0] = job.of_rows(at, thread, job.row_points.root) *
                         job.of_column(at, thread, job.col_points.root) * job.dots(at, thread);
      own[thread].t[0] = {};
    });
    for (int i = 0; i < program.size; ++i) {
      const Step<T>& s = program.ops[i];
      if (s.kind == OpKind::emit)
        emit<Block>(s, at, own, stage);
      else
        Block::each([&](int thread) { step(i, at, thread, own[thread]); });
    }
  }

  NTK_HD void step(int i, const At& at, int thread, State& own) const {
    const Step<T>& s = program.ops[i];
    const int from = s.kind == OpKind::copy ? s.other : s.slot;  // a copy's slot may be empty
    P k = get(own.K, from), t = get(own.t, from);
    if (of_two_slots(s.kind)) {
      combine(s.kind, k, t, get(own.K, s.other), get(own.t, s.other));
    } else {
      const PointsView<T>&rows = job.row_points, &cols = job.col_points;
      take_step(
          s, [&](int which) { return job.of_rows(at, thread, rows.feature(i, which)); },
          [&](int which) { return job.of_column(at, thread, cols.feature(i, which)); }, k, t);
    }
    set(own.K, s.slot, k);
    set(own.t, s.slot, t);
  }

  template <class Block, class Own>
  NTK_HD void emit(const Step<T>& s, const At& at, Own& own, Shared& stage) const {
    const auto K = [&](int thread) { return get(own[thread].K, s.slot); };
    store_both<Block>(
        at, job.results, s.other, stage, [&](int thread) { return s.affine.nngp(K(thread)); },
        [&](int thread) { return s.affine.ntk(K(thread), get(own[thread].t, s.slot)); });
  }

  static NTK_HD P get(const P (&slots)[kSlots], int slot) {
    if constexpr (!kFew) return slots[slot];
    P out = slots[0];
    for (int l = 0; l < At::kRows; ++l) out.v[l] = slot == 0 ? out.v[l] : slots[kSlots - 1].v[l];
    return out;
  }
  static NTK_HD void set(P (&slots)[kSlots], int slot, const P& value) {
    if constexpr (!kFew) slots[slot] = value;
    for (int s = 0; kFew && s < kSlots; ++s)
      for (int l = 0; l < At::kRows; ++l) slots[s].v[l] = s == slot ? value.v[l] : slots[s].v[l];
  }
};

}  // namespace ntk
