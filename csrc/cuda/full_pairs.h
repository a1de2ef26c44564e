// Pairs of samples by full covariances, a block of threads each: K and T over all pairs of
// positions lie in the block's part of a workspace, and passes over their entries follow each other
// with a barrier between.
#pragma once

#include "../program/full_program.h"
#include "squares.h"

namespace ntk {

// What entry (p, p') of a pass is made of.
enum class Source {
  data,         // <x(p), x'(p')> / channels
  entry,        // K, T (p, p')
  joined,       // the same with those of another buffer
  window,       // their sum over taps
  rows,         // L M
  columns,      // M L'
  weighted,     // L M L' on the diagonal, where L has one entry a row
  diagonal,     // K, T (p', p')
  spread,       // row 0 on the diagonal, 0 elsewhere
  own_rows,     // G M, G the row's sample's own
  own_columns,  // M G'', G' the column's
  embedded,     // K + a R, T + b R
  products,     // K K2, K T2 + T K2 with those of another buffer
  related,      // s K, s' K + s (T + 4 K), s and s' sums of these products
  recurred,     // K, T + w E, w (E + D T) of the state before, by the first of its steps
};

// A run over all entries of one buffer: made of another's, then affine and pointwise ops, then
// stored or added up.
struct FullPass {
  Source source;
  FullOpKind join;
  int in, other, out;  // buffers
  bool diagonal;       // `in` holds p = p' alone, in row 0
  int rows, cols;      // entries
  WindowTable window;  // what it reads by, where it does
  MatrixTable matrix;
  GridTable grid;
  double a, b;
  std::int64_t features;  // where matrices of samples' own begin
  int first, last;        // its ops among the steps
  int sum;    // the sum that takes scale times all entries, or that is used; those of the head's
              // slots come first
  bool adds;  // or are entries stored
  double scale;

  // The row's position of entry (p, q).
  NTK_HD int row_of(int p, int q) const { return rows == 1 ? q : p; }
};

template <class T>
struct FullStep {
  Step<T> step;
  std::int64_t features;  // where a sample's begin
};

// The entries of a pass that one of the threads makes: one in so many, neighbours side by side; or, of
// a recurrence, one in so many diagonals, in order of p. One of p = p' alone has one diagonal.
class Entries {
 public:
  int p, q;

  NTK_HD Entries(const FullPass& pass, int thread, int threads)
      : rows_(pass.rows),
        cols_(pass.cols),
        recurs_(pass.source == Source::recurred),
        chain_(recurs_ && pass.diagonal),
        threads_(threads) {
    start(chain_ ? thread : thread - (rows_ - 1));
    if (recurs_) return;
    p = thread / cols_;
    q = thread % cols_;
    down_ = threads / cols_;
    right_ = threads % cols_;
  }
  NTK_HD bool more() const { return recurs_ ? diagonal_ < (chain_ ? 1 : cols_) : p < rows_; }
  // Is it the first of a diagonal?
  NTK_HD bool first() const { return chain_ ? q == 0 : p == 0 || q == 0; }
  NTK_HD void next() {
    p += down_;
    q += right_;
    if (recurs_) {
      if (q >= cols_ || (!chain_ && p >= rows_)) start(diagonal_ + threads_);
    } else if (q >= cols_) {
      q -= cols_;
      ++p;
    }
  }

 private:
  NTK_HD void start(int diagonal) {
    diagonal_ = diagonal;
    p = diagonal < 0 ? -diagonal : 0;
    q = diagonal < 0 ? 0 : diagonal;
    down_ = chain_ ? 0 : 1;
    right_ = 1;
  }

  int rows_, cols_;
  bool recurs_, chain_;
  int threads_, down_, right_, diagonal_;
};

// f(p, p') for one in kThreads entries, neighbours side by side.
template <int kThreads, class F>
NTK_HD void each_entry(int thread, int rows, int cols, const F& f) {
  const int down = kThreads / cols, right = kThreads % cols;
  for (int p = thread / cols, q = thread % cols; p < rows; p += down) {
    f(p, q);
    q += right;
    if (q >= cols) {
      q -= cols;
      ++p;
    }
  }
}

// The pairs of a tile; of a diagonal tile those right of the diagonal: each sample with the half of
// the others that follows it on a circle.
struct TilePairs {
  std::int64_t rows, cols;
  bool diagonal;

  NTK_HD std::int64_t count() const { return diagonal ? rows * (rows - 1) / 2 : rows * cols; }
  NTK_HD void at(std::int64_t n, std::int64_t& i, std::int64_t& j) const {
    i = n % rows;
    j = n / rows;
    if (!diagonal) return;
    j = (i + 1 + j) % rows;
    if (j < i) {
      const std::int64_t kept = i;
      i = j;
      j = kept;
    }
  }
};

template <class T>
struct FullPairsOp {
  static constexpr int kThreads = 256, kBlocks = square_blocks<T>(kThreads);
  struct Shared {
    double k[kThreads], t[kThreads];  // parts of a sum
  };
  struct Matrices {
    T *k, *t;
  };
  // Values [channel][pitch] and features [row of the table][pitch] of both samples, and the
  // block's buffers [buffer][2][size].
  struct Pair {
    const T *row, *col;
    const T *row_table, *col_table;
    T* buffers;
    std::int64_t size;
    double* sums;  // [sum][2]
    NTK_HD Matrices at(int buffer) const {
      T* const k = buffers + 2 * buffer * size;
      return {k, k + size};
    }
  };

  TilePairs pairs;
  std::int64_t blocks;
  const FullPass* passes;
  int pass_count;
  const FullStep<T>* steps;
  int channels, buffer_count;
  T mean;                    // 1 / channels
  std::int64_t pitch, size;  // of rows; of a buffer's K
  T* workspace;              // [block][buffer][2][size]
  int sum_count;             // the head's slots, and what else is added up
  double* sums;              // [block][sum][2]
  T* room;                   // [block][2][slot]
  ImagesView<T> row_images, col_images;
  std::int64_t row, col;  // first samples of the tile
  Head<T> head;

  template <class Block>
  NTK_HD void run(unsigned block, Shared& shared) const {
    for (std::int64_t n = block; n < pairs.count(); n += blocks) {
      std::int64_t i, j;
      pairs.at(n, i, j);
      const Pair pair = pair_of_samples(block, row + i, col + j);
      run_pair<Block>(pair, shared);
      Block::each([&](int thread) {
        if (thread == 0) head.run(pair.sums, i, j, room + 2 * std::int64_t(block) * head.slots);
      });
      Block::sync();
    }
  }

 private:
  NTK_HD Pair pair_of_samples(unsigned block, std::int64_t r, std::int64_t c) const {
    return {row_images.pixels + r * row_images.pixels_stride,
            col_images.pixels + c * col_images.pixels_stride,
            row_images.table + r * row_images.table_stride,
            col_images.table + c * col_images.table_stride,
            workspace + 2 * std::int64_t(block) * buffer_count * size,
            size,
            sums + 2 * std::int64_t(block) * sum_count};
  }

  template <class Block>
  NTK_HD void run_pair(const Pair& pair, Shared& shared) const {
    Block::each([&](int thread) {
      for (int s = thread; s < 2 * sum_count; s += kThreads) pair.sums[s] = 0;
    });
    for (int i = 0; i < pass_count; ++i) {
      const FullPass& pass = passes[i];
      if (!pass.adds)
        Block::each([&](int thread) { store(pass, pair, thread); });
      else
        add_up<Block>(pass, pair, shared);
      Block::sync();
    }
  }

  NTK_HD void store(const FullPass& pass, const Pair& pair, int thread) const {
    const Matrices out = pair.at(pass.out);
    const bool recurs = pass.source == Source::recurred;
    Pack<T, 1> k, t, state_k{}, state_t{};
    for (Entries at(pass, thread, kThreads); at.more(); at.next()) {
      const int p = at.p, q = at.q;
      if (!recurs) {
        make(pass, pair, p, q, k.v[0], t.v[0]);
      } else if (at.first()) {
        k.v[0] = t.v[0] = 0;
      } else {
        k = state_k;
        t = state_t;
      }
      for (int s = pass.first; s < pass.last; ++s) {
        take_step_at(pass, pair, steps[s], p, q, k, t);
        if (!recurs || s > pass.first) continue;
        add_states(pass, pair, p, q, k.v[0], t.v[0]);
        state_k = k;
        state_t = t;
      }
      out.k[p * pitch + q] = k.v[0];
      out.t[p * pitch + q] = t.v[0];
    }
  }
  // From E and D T to the states' K and T, where both positions are in use.
  NTK_HD void add_states(const FullPass& pass, const Pair& pair, int p, int q, T& k, T& t) const {
    const Matrices in = pair.at(pass.in);
    const std::int64_t at = p * pitch + q, seen = pass.features + 2 * pitch;
    const T both = pair.row_table[seen + pass.row_of(p, q)] * pair.col_table[seen + q];
    t = both * (in.t[at] + T(pass.a) * (k + t));
    k = both * (in.k[at] + T(pass.a) * k);
  }
  NTK_HD void take_step_at(const FullPass& pass, const Pair& pair, const FullStep<T>& s, int p,
                           int q, Pack<T, 1>& k, Pack<T, 1>& t) const {
    const T* const rows = pair.row_table + s.features + pass.row_of(p, q);
    const T* const cols = pair.col_table + s.features + q;
    take_step(
        s.step, [&](int which) { return Pack<T, 1>{{rows[which * pitch]}}; },
        [&](int which) { return cols[which * pitch]; }, k, t);
  }

  // The sum of all entries, always in the same order: every thread's, then halves onto halves.
  template <class Block>
  NTK_HD void add_up(const FullPass& pass, const Pair& pair, Shared& shared) const {
    Block::each([&](int thread) {
      double sum_k = 0, sum_t = 0;
      each_entry<kThreads>(thread, pass.rows, pass.cols, [&](int p, int q) {
        T k, t;
        make(pass, pair, p, q, k, t);
        sum_k += k;
        sum_t += t;
      });
      shared.k[thread] = sum_k;
      shared.t[thread] = sum_t;
    });
    for (int half = kThreads / 2; half > 0; half /= 2) {
      Block::sync();
      Block::each([&](int thread) {
        if (thread >= half) return;
        shared.k[thread] += shared.k[thread + half];
        shared.t[thread] += shared.t[thread + half];
      });
    }
    Block::each([&](int thread) {
      if (thread != 0) return;
      pair.sums[2 * pass.sum] += pass.scale * shared.k[0];
      pair.sums[2 * pass.sum + 1] += pass.scale * shared.t[0];
    });
  }

  // Entry (p, q) before the pass's ops.
  NTK_HD void make(const FullPass& pass, const Pair& pair, int p, int q, T& k, T& t) const {
    const Matrices in = pair.at(pass.in);
    const auto add = [&](std::int64_t at, T weight) {
      k += weight * in.k[at];
      t += weight * in.t[at];
    };
    k = t = 0;
    switch (pass.source) {
      case Source::data:
        k = product(pair, pass.row_of(p, q), q);
        break;
      case Source::entry:
        add(p * pitch + q, 1);
        break;
      case Source::joined: {
        const Matrices other = pair.at(pass.other);
        const std::int64_t at = p * pitch + q;
        if (pass.join != FullOpKind::copy) add(at, 1);
        combine(pass.join, k, t, other.k[at], other.t[at]);
        break;
      }
      case Source::window: {
        const WindowTable& window = pass.window;
        for (const int *tap = window.source, *end = tap + std::int64_t(window.taps) * window.out;
             tap != end; tap += window.out) {
          const int from = pass.diagonal ? 0 : tap[p], to = tap[q];
          if (from >= 0 && to >= 0) add(from * pitch + to, 1);
        }
        break;
      }
      case Source::rows:
        each_of_row(pass, p, [&](int column, double w) { add(column * pitch + q, T(w)); });
        break;
      case Source::columns:
        each_of_row(pass, q, [&](int column, double w) { add(p * pitch + column, T(w)); });
        break;
      case Source::weighted:
        each_of_row(pass, q, [&](int column, double w) { add(column, T(w * w)); });
        break;
      case Source::diagonal:
        add(q * pitch + q, 1);
        break;
      case Source::spread:
        if (p == q) add(q, 1);
        break;
      case Source::own_rows: {
        const T* const own = pair.row_table + pass.features + p * pitch;
        for (int s = 0; s < pass.rows; ++s) add(s * pitch + q, own[s]);
        break;
      }
      case Source::own_columns: {  // by the transpose, which neighbours read side by side
        const T* const own = pair.col_table + pass.features + pass.cols * pitch + q;
        for (int s = 0; s < pass.cols; ++s) add(p * pitch + s, own[s * pitch]);
        break;
      }
      case Source::embedded: {
        add(p * pitch + q, 1);
        const double r = pass.grid.value[std::int64_t(pass.row_of(p, q)) * pass.grid.positions + q];
        k += T(pass.a * r);
        t += T(pass.b * r);
        break;
      }
      case Source::products: {
        const Matrices other = pair.at(pass.other);
        const std::int64_t at = p * pitch + q;
        k = in.k[at] * other.k[at];
        t = in.t[at] * other.k[at] + in.k[at] * other.t[at];
        break;
      }
      case Source::related: {
        const double *const sum = pair.sums + 2 * pass.sum, e = sum[1] + 4 * sum[0];
        const std::int64_t at = p * pitch + q;
        k = T(sum[0]) * in.k[at];
        t = T(sum[0]) * in.t[at] + T(e) * in.k[at];
        break;
      }
      case Source::recurred:  // see store()
        break;
    }
  }
  NTK_HD T product(const Pair& pair, int p, int q) const {
    T sum = 0;
    for (int c = 0; c < channels; ++c) sum += pair.row[c * pitch + p] * pair.col[c * pitch + q];
    return mean * sum;
  }
  // f(column, value) of the entries of a matrix's row.
  template <class F>
  NTK_HD void each_of_row(const FullPass& pass, int o, const F& f) const {
    const MatrixTable& matrix = pass.matrix;
    for (int e = matrix.start[o]; e < matrix.start[o + 1]; ++e)
      f(matrix.column[e], matrix.value[e]);
  }
};

}  // namespace ntk
