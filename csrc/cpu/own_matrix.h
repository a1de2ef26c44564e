// The matrix of positions of a sample's own, G, and weights of its positions: what a sample's table
// holds for mixes and weighings.
#pragma once

#include <cmath>

#include "../program/full_program.h"

namespace ntk {
namespace {

template <class T>
class OwnMatrix {
 public:
  // values: the sample, [channel][pitch]; k: its K over all pairs of its first `size` positions.
  OwnMatrix(const FullProgram& program, const FullOp& op, const double* values, const T* k,
            std::int64_t pitch, int size)
      : program_(program),
        op_(op),
        beside_(values + program.channels * pitch),
        k_(k),
        pitch_(pitch),
        size_(size) {}

  // G, its transpose, and whether most of it is 0: [2 positions + 1][pitch].
  void write(double* table) const {
    double *const transposed = table + op_.positions * pitch_, *const sparse =
                                                                   transposed +
                                                                   op_.positions * pitch_;
    int filled = 0;
    for (int s = 0; s < size_; ++s) {
      double* const row = table + s * pitch_;
      write_row(s, row);
      for (int t = 0; t < size_; ++t) {
        transposed[t * pitch_ + s] = row[t];
        filled += row[t] != 0;
      }
    }
    sparse[0] = kSparse * std::int64_t(filled) < std::int64_t(size_) * size_;
  }

  // w: of positions in use 1, or one over their number; of what follows a mix, G'w. `room`: as many
  // numbers.
  void weights(double* w, double* room) const {
    double seen = 0;
    for (int p = 0; p < size_; ++p) seen += in_use(p);
    const double weight = op_.constants.p[0] != 0 && seen > 0 ? 1 / seen : 1;
    for (int p = 0; p < size_; ++p) w[p] = in_use(p) ? weight : 0;
    if (op_.matrix == Matrix::none) return;
    double* const total = w + pitch_;
    for (int t = 0; t < size_; ++t) total[t] = 0;
    for (int s = 0; s < size_; ++s) {
      if (w[s] == 0) continue;
      write_row(s, room);
      for (int t = 0; t < size_; ++t) total[t] += w[s] * room[t];
    }
    for (int t = 0; t < size_; ++t) w[t] = total[t];
  }

  bool in_use(int p) const {
    return op_.mask < 0 || beside_[program_.masks[op_.mask].origin[p]] != 0;
  }

 private:
  static constexpr std::int64_t kSparse = 8;  // below a share of one in so many

  // G(s, t) over t.
  void write_row(int s, double* row) const {
    for (int t = 0; t < size_; ++t) row[t] = in_use(t) ? logit(s, t) : 0;
    switch (op_.matrix) {
      case Matrix::softmax:
        softmax(row);
        break;
      case Matrix::relu:
        for (int t = 0; t < size_; ++t) row[t] = row[t] > 0 ? row[t] : 0;
        break;
      case Matrix::abs:
        for (int t = 0; t < size_; ++t) row[t] = std::fabs(row[t]);
        break;
      case Matrix::none:
      case Matrix::given:
      case Matrix::identity:
        break;
    }
  }
  double logit(int s, int t) const {
    if (op_.matrix == Matrix::given) return beside_[(int(program_.beside.mask) + t) * pitch_ + s];
    const double value = op_.constants.p[2] * double(k_[s * pitch_ + t]);
    if (op_.table < 0) return value;
    const GridTable& grid = program_.grids[op_.table];
    return value + op_.constants.p[3] * grid.value[std::int64_t(s) * grid.positions + t];
  }
  void softmax(double* row) const {
    double most = -HUGE_VAL, total = 0;
    for (int t = 0; t < size_; ++t)
      if (in_use(t) && row[t] > most) most = row[t];
    for (int t = 0; t < size_; ++t) {
      row[t] = in_use(t) ? std::exp(row[t] - most) : 0;
      total += row[t];
    }
    for (int t = 0; t < size_; ++t) row[t] = total > 0 ? row[t] / total : 0;
  }

  const FullProgram& program_;
  const FullOp& op_;
  const double* beside_;
  const T* k_;
  const std::int64_t pitch_;
  const int size_;
};

}  // namespace
}  // namespace ntk
