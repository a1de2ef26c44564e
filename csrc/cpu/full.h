// Pairs of samples by full covariances: dense matrices over all pairs of positions, one pair of
// samples at a time, positions p' side by side in vectors.
#pragma once

#include "../program/full_program.h"
#include "../stop.h"
#include "head.h"
#include "own_matrix.h"
#include "pointwise.h"
#include "product.h"
#include "recur.h"

namespace ntk {
namespace {

// K and T over the pairs (p, p') of a slot that are in use, p < rows and p' < cols: what lies beyond
// is masked. Where only p = p' is kept, over these in row 0.
template <class T>
struct Field {
  T *k, *t;
  int rows, cols;
  bool diagonal;
  int kept_rows() const { return diagonal ? 1 : rows; }
  int common() const { return rows < cols ? rows : cols; }
};

// Two samples: values [channel][pitch], and features [row of the table][pitch].
template <class T>
struct FullPair {
  const T *row, *col;
  const T *row_table, *col_table;  // their features
  int row_length, col_length;      // positions of the data in use
  double* record;                  // of a sample with itself: where its table is written
  const double* record_values;     // and what it is, [channel][pitch]
};

// kSelf: a sample with itself, whose table is written on the way; without kNtk nothing else is wanted,
// and a slot is reduced to p = p' as soon as the table needs no more of it.
template <class T, bool kNtk, bool kSelf>
class FullRun {
 public:
  using V = typename Vector<T>::type;
  using Integers = typename Vector<T>::integer;
  static constexpr int L = kLanes<T>;

  // Without memory (not `real`) only its size is found out.
  FullRun(const FullProgram& program, const std::int64_t* offset, char*& memory, bool real)
      : program_(program), offset_(offset), pitch_(pitch_of<T>(program)) {
    const std::int64_t size = pitch_ * program.largest, beyond = pitch_ + L;
    fields_ = static_cast<Field<T>*>(carve(memory, (program.slots + 1) * sizeof(Field<T>)));
    for (int s = 0; s <= program.slots; ++s) {
      // A row's neighbours are read along with it, those of the first and last row too.
      T* const k = beyond + static_cast<T*>(carve(memory, (size + 2 * beyond) * sizeof(T)));
      T* const t = beyond + static_cast<T*>(carve(memory, (size + 2 * beyond) * sizeof(T)));
      if (real) fields_[s] = {k, t, 0, 0, false};
    }
    shifted_ = static_cast<Shifted*>(carve(memory, program.most_taps * sizeof(Shifted)));
    const int inner = program.largest > program.channels ? program.largest : program.channels;
    panel_ = static_cast<T*>(carve(memory, panel_size<T>(inner) * sizeof(T)));
    weights_ = static_cast<double*>(carve(memory, program.largest * sizeof(double)));
    for (T*& states : before_) states = static_cast<T*>(carve(memory, beyond * sizeof(T)));
  }

  // Adds to readouts [head slot][2][step].
  void run(const FullPair<T>& pair, double* readouts, int step) {
    load_input(pair);
    for (int i = 0; i < program_.size && !stopped();) {
      const FullOp& op = program_.ops[i];
      Field<T>& field = fields_[op.slot];
      const int last = row_ops_end(i);
      switch (op.kind) {
        case FullOpKind::affine:
        case FullOpKind::pointwise:
          by_rows(i, last, pair, field);
          break;
        case FullOpKind::window:
          window(op, field, i + 1, last, pair);
          break;
        case FullOpKind::linear:
          linear(op, field, pair);
          break;
        case FullOpKind::mix:
          mix(op, i, pair, field);
          break;
        case FullOpKind::embed:
          embed(op, field);
          break;
        case FullOpKind::relate:
          relate(field, fields_[op.other]);
          break;
        case FullOpKind::recur:
          recur(op, offset_[i] * pitch_, pair, field);
          break;
        case FullOpKind::copy:
        case FullOpKind::add:
        case FullOpKind::multiply:
          if (kTable && op.kind != FullOpKind::copy) level(field, fields_[op.other]);
          join(op.kind, field, fields_[op.other]);
          break;
        case FullOpKind::diagonal:
          if (!field.diagonal) to_diagonal(field);
          break;
        case FullOpKind::spread:
          to_all(op, field, pair);
          break;
        case FullOpKind::readout:
        case FullOpKind::trace:
          if (!kTable) read_out(op, field, readouts + 2 * step * op.other, step);
          break;
      }
      reduce(field, last);
      i = last;
    }
  }

 private:
  // A tap's rows, moved to where outputs read, and which outputs do.
  struct Shifted {
    const T *k, *t;
    const std::int32_t* mask;
  };

  static constexpr bool kTable = kSelf && !kNtk;

  // What joins holds p = p' alone where one of them does.
  void level(Field<T>& a, Field<T>& b) {
    if (a.diagonal && !b.diagonal) to_diagonal(b);
    if (b.diagonal && !a.diagonal) to_diagonal(a);
  }
  // After the first so many ops.
  void reduce(Field<T>& field, int ops) {
    if (kTable && !program_.own_pairs[ops] && !field.diagonal) to_diagonal(field);
  }

  T* row(T* matrix, int p) const { return matrix + p * pitch_; }
  Field<T>& spare() { return fields_[program_.slots]; }

  // The field's size where it has so many positions, masked by this table.
  void resize(Field<T>& field, int positions, int mask, const FullPair<T>& pair) const {
    const auto in_use = [&](int length) {
      return mask < 0 ? positions : program_.masks[mask].reach[length];
    };
    field.rows = in_use(pair.row_length);
    field.cols = in_use(pair.col_length);
    if (field.diagonal) field.rows = field.cols = field.common();
  }
  // Zeros up to position `end`.
  void clear_beyond(Field<T>& field, int end) const {
    for (int which = 0; which < (kNtk ? 2 : 1); ++which) {
      T* const matrix = which ? field.t : field.k;
      for (int p = 0; p < (field.diagonal ? 1 : end); ++p)
        for (int q = p < field.rows ? field.cols : 0; q < end; ++q) row(matrix, p)[q] = 0;
    }
    if (field.rows < end) field.rows = end;
    if (field.cols < end) field.cols = end;
  }

  // K = <x(p), x'(p')>/channels, T = 0.
  void load_input(const FullPair<T>& pair) {
    Field<T>& field = fields_[0];
    field.diagonal = program_.diagonal || (kTable && !program_.own_pairs[0]);
    field.rows = pair.row_length;
    field.cols = pair.col_length;
    if (field.diagonal) field.rows = field.cols = field.common();
    if (field.diagonal)
      product_of_positions(pair, field);
    else
      multiply(Product<T>{pair.row, pair.col, field.k, pitch_, 1, pitch_, field.rows,
                          program_.channels, field.cols, panel_});
    const T scale = T(1.0 / program_.channels);
    for (int p = 0; p < field.kept_rows(); ++p) {
      T *const k = row(field.k, p), *const t = row(field.t, p);
      for (int q = 0; q < field.cols; q += L) {
        store(k + q, scale * load(k + q));
        if (kNtk) store(t + q, V{});
      }
    }
  }
  void product_of_positions(const FullPair<T>& pair, Field<T>& field) const {
    for (int q = 0; q < field.cols; q += L) {
      V sum = V{};
      for (int c = 0; c < program_.channels; ++c)
        sum += load(pair.row + c * pitch_ + q) * load(pair.col + c * pitch_ + q);
      store(field.k + q, sum);
    }
  }

  // Affine and pointwise ops act on every row by itself: those that follow op i on its slot run
  // while a row is in the cache. A sample with itself needs all variances first: op by op.
  int row_ops_end(int i) const {
    const FullOpKind kind = program_.ops[i].kind;
    int end = i + 1;
    if (!kSelf && (is_row_op(kind) || kind == FullOpKind::window))
      while (end < program_.size && is_row_op(program_.ops[end].kind) &&
             program_.ops[end].slot == program_.ops[i].slot)
        ++end;
    return end;
  }
  static bool is_row_op(FullOpKind kind) {
    return kind == FullOpKind::affine || kind == FullOpKind::pointwise;
  }

  void by_rows(int first, int last, const FullPair<T>& pair, Field<T>& field) {
    const bool features = kSelf && program_.ops[first].kind == FullOpKind::pointwise;
    if (features) record(program_.ops[first], pair.record + offset_[first] * pitch_, pair, field);
    for (int p = 0; p < field.kept_rows(); ++p) apply_row(first, last, pair, field, p);
    if (features) finish_self(field);
  }
  void apply_row(int first, int last, const FullPair<T>& pair, Field<T>& field, int p) {
    for (int i = first; i < last; ++i)
      if (program_.ops[i].kind == FullOpKind::affine)
        affine_row(program_.ops[i], field, p);
      else if (acts(program_.ops[i].pointwise))
        pointwise_row(i, pair, field, p);
  }

  void affine_row(const FullOp& op, Field<T>& field, int p) {
    const Affine<T> map = op.constants.affine().as<T>();
    T *const k = row(field.k, p), *const t = row(field.t, p);
    for (int q = 0; q < field.cols; q += L) {
      V a = load(k + q), b = kNtk ? load(t + q) : V{};
      map.template apply<kNtk>(a, b);
      store(k + q, a);
      if (kNtk) store(t + q, b);
    }
  }

  void pointwise_row(int number, const FullPair<T>& pair, Field<T>& field, int p) {
    const FullOp& op = program_.ops[number];
    const std::int64_t at = offset_[number] * pitch_;
    const T *const rows = pair.row_table + at, *const cols = pair.col_table + at;
    T *const k = row(field.k, p), *const t = row(field.t, p);
    const bool diagonal = field.diagonal;
    const auto of_row = [&](int which, std::int64_t i) __attribute__((always_inline)) {
      const T* const f = rows + which * pitch_;
      return diagonal ? load(f + i * L) : splat(f[p]);
    };
    const auto of_col = [&](int which, std::int64_t i) __attribute__((always_inline)) {
      return load(cols + which * pitch_ + i * L);
    };
    visit_pointwise<T>(
        op.pointwise, op.constants, [&](const auto& phi) __attribute__((always_inline)) {
          pointwise_pairs<T, kNtk, false>(phi, (field.cols + L - 1) / L, of_row, of_col, k, t);
        });
  }

  // A sample with itself: features of its positions, and what becomes of p = p', where the
  // correlation is exactly 1.
  void record(const FullOp& op, double* features, const FullPair<T>& pair, const Field<T>& field) {
    own_.k = row(spare().k, 0);
    own_.t = row(spare().t, 0);
    if (means_of(op)) return record_means(op, features, field);
    if (holds_weights(op)) return record_weights(op, features, pair, field);
    for (int p = 0; p < field.cols; ++p) {
      const std::int64_t at = field.diagonal ? p : p * pitch_ + p;
      const WithItself<double> r = with_itself(op.pointwise, op.constants, double(field.k[at]));
      for (int f = 0; f < features_at(op); ++f) features[f * pitch_ + p] = r.f[f];
      own_.k[p] = T(r.E);
      if (kNtk) own_.t[p] = T(r.D * double(field.t[at]));
    }
  }
  // The same of a normalisation by means of variances over positions.
  void record_means(const FullOp& op, double* features, const Field<T>& field) {
    const Normalize<double> norm(op.constants.p);
    const MatrixTable& means = program_.matrices[op.table];
    const std::int64_t step = field.diagonal ? 1 : pitch_ + 1;
    for (int p = 0; p < field.cols; ++p) {
      double mean = 0, f[2];
      for (int e = means.start[p]; e < means.start[p + 1]; ++e)
        mean += means.value[e] * double(field.k[means.column[e] * step]);
      norm.side(mean, f);
      for (int which = 0; which < 2; ++which) features[which * pitch_ + p] = f[which];
      own_.k[p] = T(f[0] * f[0] * double(field.k[p * step]));
      if (kNtk) own_.t[p] = T(f[0] * f[0] * double(field.t[p * step]));
    }
  }
  // Weights of positions.
  void record_weights(const FullOp& op, double* features, const FullPair<T>& pair,
                      const Field<T>& field) {
    const OwnMatrix<T> own(program_, op, pair.record_values, field.k, pitch_, field.cols);
    own.weights(features, weights_);
    const std::int64_t step = field.diagonal ? 1 : pitch_ + 1;
    for (int p = 0; p < field.cols; ++p) {
      features[pitch_ + p] = 0;
      own_.k[p] = T(features[p] * features[p] * double(field.k[p * step]));
      if (kNtk) own_.t[p] = T(features[p] * features[p] * double(field.t[p * step]));
    }
  }
  void finish_self(Field<T>& field) {
    for (int p = 0; p < field.cols; ++p) {
      const std::int64_t at = field.diagonal ? p : p * pitch_ + p;
      field.k[at] = own_.k[p];
      if (kNtk) field.t[at] = own_.t[p];
    }
  }

  // Ops first … last of rows follow.
  void window(const FullOp& op, Field<T>& field, int first, int last, const FullPair<T>& pair) {
    const WindowTable& table = program_.windows[op.table];
    Field<T>& out = spare();
    out.diagonal = field.diagonal;
    resize(out, op.positions, op.mask, pair);
    if (op.mask >= 0) clear_beyond(field, table.needs[out.rows > out.cols ? out.rows : out.cols]);
    for (int o = 0; o < out.kept_rows(); ++o) {
      sum_of_taps(table, field, o, out.cols, row(out.k, o), row(out.t, o));
      affine_row(op, out, o);
      apply_row(first, last, pair, out, o);
    }
    swap(field, out);
  }

  // K(o') = sum over taps t of K(source_t(o), source_t(o')), and T; on the diagonal o is o'.
  void sum_of_taps(const WindowTable& table, const Field<T>& field, int o, int cols, T* k, T* t) {
    int count = 0;
    for (int tap = 0; tap < table.taps; ++tap) {
      const int p = source_row(table, field, tap, o);
      if (p < 0 || has_runs(table, tap)) continue;
      const std::int64_t at = p * pitch_ + table.shift[tap];
      shifted_[count++] = {field.k + at, field.t + at, table.mask + tap * table.mask_pitch};
    }
    sum_of_shifted(count, cols, k, t);
    for (int tap = 0; tap < table.taps; ++tap) {
      const int p = source_row(table, field, tap, o);
      if (p < 0) continue;
      for (int r = table.first_run[tap]; r < table.first_run[tap + 1]; ++r) {
        add_run(table.runs[r], row(field.k, p), k);
        if (kNtk) add_run(table.runs[r], row(field.t, p), t);
      }
    }
  }
  static int source_row(const WindowTable& table, const Field<T>& field, int tap, int o) {
    return field.diagonal ? 0 : table.source[std::int64_t(tap) * table.out + o];
  }
  static bool has_runs(const WindowTable& table, int tap) {
    return table.first_run[tap] < table.first_run[tap + 1];
  }

  // What lies beyond a row is read too, and masked.
  void sum_of_shifted(int count, int cols, T* k, T* t) {
    for (int q = 0; q < cols; q += L) {
      V sum_k = V{}, sum_t = V{};
      for (int i = 0; i < count; ++i) {
        const Shifted& from = shifted_[i];
        const Integers mask = wide_mask(from.mask + q);
        sum_k += (V)((Integers)load(from.k + q) & mask);
        if (kNtk) sum_t += (V)((Integers)load(from.t + q) & mask);
      }
      store(k + q, sum_k);
      if (kNtk) store(t + q, sum_t);
    }
  }
  static NTK_HD Integers wide_mask(const std::int32_t* mask) {
    typedef std::int32_t Narrow __attribute__((vector_size(L * 4)));
    Narrow narrow;
    __builtin_memcpy(&narrow, mask, sizeof narrow);
    return __builtin_convertvector(narrow, Integers);
  }
  static void add_run(const Run& run, const T* from, T* sum) {
    T* const to = sum + run.to;
    from += run.from;
    if (run.step == 1) {
      int i = 0;
      for (; i + L <= run.count; i += L) store(to + i, load(to + i) + load(from + i));
      for (; i < run.count; ++i) to[i] += from[i];
    } else {
      for (int i = 0; i < run.count; ++i) to[i] += from[std::int64_t(i) * run.step];
    }
  }

  void linear(const FullOp& op, Field<T>& field, const FullPair<T>& pair) {
    const MatrixTable& table = program_.matrices[op.table];
    if (op.mask >= 0) clear_beyond(field, table.reads);
    for (int which = 0; which < (kNtk ? 2 : 1); ++which) {
      T *const matrix = which ? field.t : field.k, *const other = spare().k;
      if (field.diagonal)
        on_diagonal(table, matrix, other);
      else
        from_both_sides(table, field.cols, matrix, other);
    }
    resize(field, op.positions, op.mask, pair);
  }

  // M <- L M L' as (L (L M)')'.
  void from_both_sides(const MatrixTable& table, int cols, T* matrix, T* other) {
    times(table, cols, matrix, other);
    transpose(other, matrix, pitch_, table.out, cols);
    times(table, table.out, matrix, other);
    transpose(other, matrix, pitch_, table.out, table.out);
  }
  // out <- L M, M of so many columns.
  void times(const MatrixTable& table, int columns, T* matrix, T* out) {
    for (int o = 0; o < table.out; ++o) {
      T* const to = row(out, o);
      for (int q = 0; q < columns; q += L) store(to + q, V{});
      for (int e = table.start[o]; e < table.start[o + 1]; ++e) {
        const T weight = T(table.value[e]);
        const T* const from = row(matrix, table.column[e]);
        for (int q = 0; q < columns; q += L) store(to + q, load(to + q) + weight * load(from + q));
      }
    }
  }
  // M <- L M L' on the diagonal, where L has one entry a row.
  static void on_diagonal(const MatrixTable& table, T* matrix, T* other) {
    for (int o = 0; o < table.out; ++o) {
      other[o] = 0;
      for (int e = table.start[o]; e < table.start[o + 1]; ++e)
        other[o] += T(table.value[e] * table.value[e]) * matrix[table.column[e]];
    }
    for (int o = 0; o < table.out; ++o) matrix[o] = other[o];
  }

  void join(FullOpKind kind, Field<T>& to, const Field<T>& from) {
    to.rows = from.rows;
    to.cols = from.cols;
    to.diagonal = from.diagonal;
    for (int p = 0; p < from.kept_rows(); ++p) {
      T *const k = row(to.k, p), *const t = row(to.t, p);
      const T *const other_k = row(from.k, p), *const other_t = row(from.t, p);
      for (int q = 0; q < from.cols; q += L) {
        V a = load(k + q), b = kNtk ? load(t + q) : V{};
        combine(kind, a, b, load(other_k + q), kNtk ? load(other_t + q) : V{});
        store(k + q, a);
        if (kNtk) store(t + q, b);
      }
    }
  }

  void to_diagonal(Field<T>& field) {
    field.rows = field.cols = field.common();
    for (int p = 1; p < field.cols; ++p) {
      field.k[p] = row(field.k, p)[p];
      if (kNtk) field.t[p] = row(field.t, p)[p];
    }
    field.diagonal = true;
  }
  void to_all(const FullOp& op, Field<T>& field, const FullPair<T>& pair) {
    const int held = field.cols;
    field.diagonal = false;
    resize(field, op.positions, op.mask, pair);
    for (int which = 0; which < (kNtk ? 2 : 1); ++which) {
      T* const matrix = which ? field.t : field.k;
      for (int p = 1; p < field.rows; ++p) {
        T* const to = row(matrix, p);
        for (int q = 0; q < field.cols; q += L) store(to + q, V{});
        if (p < held) to[p] = matrix[p];
      }
      for (int p = 1; p < field.cols; ++p) matrix[p] = 0;
    }
  }

  // M <- G M G'', by the matrices that the samples' tables hold from `at` on.
  void mix(const FullOp& op, int number, const FullPair<T>& pair, Field<T>& field) {
    const std::int64_t at = offset_[number] * pitch_;
    if (kSelf) {
      const OwnMatrix<T> own(program_, op, pair.record_values, field.k, pitch_, field.cols);
      own.write(pair.record + at);
    }
    const std::int64_t size = op.positions * pitch_;
    const T *const rows = pair.row_table + at, *const cols = pair.col_table + at;
    const bool sparse = rows[2 * size] != 0 && cols[2 * size] != 0;
    for (int which = 0; which < (kNtk ? 2 : 1); ++which) {
      T *const matrix = which ? field.t : field.k, *const other = spare().k;
      if (sparse) {
        multiply_sparse(product(rows, matrix, other, field.rows, field.rows, field.cols));
        transpose(other, matrix, pitch_, field.rows, field.cols);
        multiply_sparse(product(cols, matrix, other, field.cols, field.cols, field.rows));
        transpose(other, matrix, pitch_, field.cols, field.rows);
      } else {
        multiply(product(rows, matrix, other, field.rows, field.rows, field.cols));
        if (kTable && !program_.own_pairs[number + 1]) {
          for (int p = 0; p < field.rows; ++p)
            row(matrix, p)[p] = T(dot(row(other, p), rows + p * pitch_, field.cols));
        } else {
          multiply(product(other, cols + size, matrix, field.rows, field.cols, field.cols));
        }
      }
    }
  }
  Product<T> product(const T* a, const T* b, T* c, int rows, int inner, int cols) const {
    return {a, b, c, pitch_, pitch_, 1, rows, inner, cols, panel_};
  }

  void embed(const FullOp& op, Field<T>& field) {
    const GridTable& grid = program_.grids[op.table];
    const double a = op.constants.p[0], b = op.constants.p[1];
    for (int p = 0; p < field.kept_rows(); ++p) {
      T *const k = row(field.k, p), *const t = row(field.t, p);
      for (int q = 0; q < field.cols; ++q) {
        const double covariance =
            grid.value[std::int64_t(field.diagonal ? q : p) * grid.positions + q];
        k[q] += T(a * covariance);
        if (kNtk) t[q] += T(b * covariance);
      }
    }
  }

  // In order of p; of a sample with itself all p = p' first, whose features the others need.
  void recur(const FullOp& op, std::int64_t at, const FullPair<T>& pair, Field<T>& field) {
    const Recurrence<T, kNtk> step(op, pair.row_table + at, pair.col_table + at, pitch_);
    if (kSelf) record_states(op, pair.record + at, pair, field);
    if (!field.diagonal)
      for (int p = 0; p < field.rows; ++p)
        step.row(p, field.cols, row(field.k, p), row(field.t, p), before_[0], before_[1]);
    else if (!kSelf)
      step.chain(field.cols, field.k, field.t);
    if (kSelf) finish_self(field);
  }
  void record_states(const FullOp& op, double* features, const FullPair<T>& pair,
                     const Field<T>& field) {
    const OwnMatrix<T> own(program_, op, pair.record_values, field.k, pitch_, field.cols);
    own_.k = row(spare().k, 0);
    own_.t = row(spare().t, 0);
    const double w = weight_of_states(op);
    double k = 0, t = 0;
    for (int p = 0; p < field.cols; ++p) {
      const std::int64_t from = field.diagonal ? p : p * pitch_ + p;
      const WithItself<double> r = with_itself(op.pointwise, op.constants, k);
      for (int f = 0; f < 2; ++f) features[f * pitch_ + p] = r.f[f];
      const bool in_use = own.in_use(p);
      features[2 * pitch_ + p] = in_use;
      t = in_use ? double(field.t[from]) + w * (r.E + r.D * t) : 0;
      k = in_use ? double(field.k[from]) + w * r.E : 0;
      own_.k[p] = T(k);
      own_.t[p] = T(t);
    }
  }

  // Sums over all pairs of positions come first.
  void relate(Field<T>& field, const Field<T>& other) {
    double s = 0, of_t = 0;
    for (int p = 0; p < field.rows; ++p) {
      const T *const k = row(field.k, p), *const t = row(field.t, p);
      const T *const k2 = row(other.k, p), *const t2 = row(other.t, p);
      s += dot(k, k2, field.cols);
      if (kNtk) of_t += dot(t, k2, field.cols) + dot(k, t2, field.cols);
    }
    const T a = T(s), e = T(of_t + 4 * s);
    for (int p = 0; p < field.rows; ++p) {
      T *const k = row(field.k, p), *const t = row(field.t, p);
      for (int q = 0; q < field.cols; q += L) {
        if (kNtk) store(t + q, a * load(t + q) + e * load(k + q));
        store(k + q, a * load(k + q));
      }
    }
  }
  static double dot(const T* x, const T* y, int count) {
    V sums = V{};
    int i = 0;
    for (; i + L <= count; i += L) sums += load(x + i) * load(y + i);
    double total = 0;
    for (; i < count; ++i) total += double(x[i]) * double(y[i]);
    for (int l = 0; l < L; ++l) total += double(sums[l]);
    return total;
  }

  void read_out(const FullOp& op, const Field<T>& field, double* readouts, int step) {
    for (int which = 0; which < (kNtk ? 2 : 1); ++which) {
      T* const matrix = which ? field.t : field.k;
      const bool few = op.kind == FullOpKind::trace && !field.diagonal;
      double total = 0;
      for (int p = 0; p < (few ? field.common() : field.kept_rows()); ++p)
        total += few ? double(row(matrix, p)[p]) : double(sum_of(row(matrix, p), field.cols));
      readouts[which * step] += op.constants.scale() * total;
    }
  }
  static T sum_of(const T* values, int count) {
    V sums = V{};
    int i = 0;
    for (; i + L <= count; i += L) sums += load(values + i);
    T total = 0;
    for (; i < count; ++i) total += values[i];
    for (int l = 0; l < L; ++l) total += sums[l];
    return total;
  }

  static void swap(Field<T>& a, Field<T>& b) {
    const Field<T> kept = a;
    a = b;
    b = kept;
  }

  const FullProgram program_;
  const std::int64_t* offset_;
  const std::int64_t pitch_;
  Field<T>* fields_;  // of the slots, and a spare one
  Shifted* shifted_;  // of one row of outputs
  T* panel_;          // of products
  double* weights_;   // of positions
  T* before_[2];      // a row of states before
  struct {
    T *k, *t;
  } own_{};  // of a sample with itself: what becomes of p = p'
};

template <class T>
FullPair<T> pair_of(const FullProgram& program, const ImagesView<T>& rows, std::int64_t r,
                    const ImagesView<T>& cols, std::int64_t c) {
  const T *const of_row = rows.table + r * rows.table_stride, *const of_col = cols.table +
                                                                              c * cols.table_stride;
  return {
      rows.pixels + r * rows.pixels_stride, cols.pixels + c * cols.pixels_stride, of_row,  of_col,
      length_in(program, of_row),           length_in(program, of_col),           nullptr, nullptr};
}

template <class T, bool kNtk>
void run_full(const FullTile<T>& tile) {
  constexpr int L = kLanes<T>;
  char* memory = static_cast<char*>(tile.workspace);
  const HeadScratch<T> s = make_head_scratch<T>(tile.program.head, memory);
  const ImagesView<T>&rows = tile.row_images, &cols = tile.col_images;
  FullRun<T, kNtk, false> run(tile.program, rows.offset, memory, true);
  for (std::int64_t i = 0; i < tile.rows && !stopped(); ++i)
    for (std::int64_t j = 0; j < tile.cols && !stopped(); j += L) {
      if (tile.diagonal && j + L - 1 <= i) continue;
      for (int k = 0; k < 2 * tile.program.head.slots * L; ++k) s.readouts[k] = 0;
      for (int l = 0; l < L && j + l < tile.cols; ++l) {
        if (tile.diagonal && j + l <= i) continue;
        const std::int64_t r = tile.row + i, c = tile.col + j + l;
        run.run(pair_of(tile.program, rows, r, cols, c), s.readouts + l, L);
      }
      run_head<T, kNtk>(tile, tile.row + i, tile.col + j, s);
      scatter(tile, i, j, s);
    }
}

// A sample with itself: its table, and its read-outs.
template <bool kNtk>
void run_full_self_as(const FullSelf& self) {
  char* memory = static_cast<char*>(self.workspace);
  FullRun<double, kNtk, true> run(self.program, self.offset, memory, true);
  const int length = length_in(self.program, self.table);
  run.run(
      {self.values, self.values, self.table, self.table, length, length, self.table, self.values},
      self.readouts, 1);
}
inline void run_full_self(const FullSelf& self) {
  self.complete ? run_full_self_as<true>(self) : run_full_self_as<false>(self);
}

inline std::int64_t full_scratch_bytes(const FullProgram& program) {
  char* memory = nullptr;
  make_head_scratch<double>(program.head, memory);
  FullRun<double, true, true>(program, nullptr, memory, false);
  return memory - static_cast<char*>(nullptr);
}

}  // namespace
}  // namespace ntk
