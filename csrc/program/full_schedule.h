// Owns a program of full covariances with its tables.
#pragma once

#include <vector>

#include "full_program.h"
#include "owned_program.h"

namespace ntk {

// The rows of source: one tap each.
class OwnedWindow {
 public:
  OwnedWindow(int taps, int out, std::vector<int> source);
  WindowTable view() const {
    return {taps_,         out_,         source_.data(),
            needs_.data(), runs_.data(), first_run_.data(),
            shift_.data(), mask_.data(), mask_pitch_};
  }

 private:
  void add_runs(const int* from);

  int taps_, out_;
  std::int64_t mask_pitch_;
  std::vector<int> source_, needs_, first_run_, shift_;
  std::vector<std::int32_t> mask_;
  std::vector<Run> runs_;
};

class OwnedMatrix {
 public:
  OwnedMatrix(std::vector<int> start, std::vector<int> column, std::vector<double> value)
      : start_(std::move(start)), column_(std::move(column)), value_(std::move(value)) {}
  MatrixTable view() const {
    int reads = 0;
    for (const int column : column_) reads = column >= reads ? column + 1 : reads;
    return {int(start_.size()) - 1, reads, start_.data(), column_.data(), value_.data()};
  }
  // Has no row more than one entry?
  bool single() const {
    for (std::size_t o = 0; o + 1 < start_.size(); ++o)
      if (start_[o + 1] - start_[o] > 1) return false;
    return true;
  }

 private:
  std::vector<int> start_, column_;
  std::vector<double> value_;
};

class OwnedGrid {
 public:
  OwnedGrid(int positions, std::vector<double> value)
      : positions_(positions), value_(std::move(value)) {}
  GridTable view() const { return {positions_, value_.data()}; }

 private:
  int positions_;
  std::vector<double> value_;
};

class OwnedMask {
 public:
  // Of data with so many positions.
  OwnedMask(std::vector<int> origin, int positions);
  MaskTable view() const { return {int(origin_.size()), origin_.data(), reach_.data()}; }

 private:
  std::vector<int> origin_, reach_;
};

struct FullShape {
  int positions, channels;
  bool diagonal, flip_symmetric;
  Beside beside;
};

struct FullTables {
  std::vector<OwnedWindow> windows;
  std::vector<OwnedMatrix> matrices;
  std::vector<OwnedGrid> grids;
  std::vector<OwnedMask> masks;
};

class FullSchedule {
 public:
  FullSchedule(std::vector<FullOp> ops, int slots, FullTables tables, OwnedProgram head,
               FullShape shape);
  FullProgram view() const;
  // Rows of positions of one sample's table, and where each op's features start.
  std::int64_t table_rows() const { return table_rows_; }
  const std::int64_t* offset() const { return offset_.data(); }
  bool head_needs_variance() const { return head_.needs_variance(); }
  // Elements that all ops on a pair write or read, about.
  double work() const;
  // As of PlaneSchedule.
  bool homogeneous() const;
  bool flip_symmetric() const { return shape_.flip_symmetric; }
  // Does a sample with itself cost as much as a pair?
  bool mixes() const;
  // Channels of the data, those beside the features too.
  int width() const { return shape_.channels + shape_.beside.channels(shape_.positions); }

 private:
  void find_own_pairs();

  std::vector<FullOp> ops_;
  int slots_;
  FullTables tables_;
  OwnedProgram head_;
  FullShape shape_;
  std::vector<WindowTable> window_views_;
  std::vector<MatrixTable> matrix_views_;
  std::vector<GridTable> grid_views_;
  std::vector<MaskTable> mask_views_;
  std::vector<std::int64_t> offset_;
  std::vector<char> own_pairs_;
  std::int64_t table_rows_;
  int largest_, most_taps_ = 0;
};

}  // namespace ntk
