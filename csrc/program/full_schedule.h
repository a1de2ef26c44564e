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
    return {taps_,         out_,         source_.data(), runs_.data(), first_run_.data(),
            shift_.data(), mask_.data(), mask_pitch_};
  }

 private:
  void add_runs(const int* from);

  int taps_, out_;
  std::int64_t mask_pitch_;
  std::vector<int> source_, first_run_, shift_;
  std::vector<std::int32_t> mask_;
  std::vector<Run> runs_;
};

class OwnedMatrix {
 public:
  OwnedMatrix(std::vector<int> start, std::vector<int> column, std::vector<double> value)
      : start_(std::move(start)), column_(std::move(column)), value_(std::move(value)) {}
  MatrixTable view() const {
    return {int(start_.size()) - 1, start_.data(), column_.data(), value_.data()};
  }

 private:
  std::vector<int> start_, column_;
  std::vector<double> value_;
};

struct FullShape {
  int positions, channels;
  bool diagonal, flip_symmetric;
};

class FullSchedule {
 public:
  FullSchedule(std::vector<FullOp> ops, int slots, std::vector<OwnedWindow> windows,
               std::vector<OwnedMatrix> matrices, OwnedProgram head, FullShape shape);
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

 private:
  std::vector<FullOp> ops_;
  int slots_;
  std::vector<OwnedWindow> windows_;
  std::vector<OwnedMatrix> matrices_;
  OwnedProgram head_;
  FullShape shape_;
  std::vector<WindowTable> window_views_;
  std::vector<MatrixTable> matrix_views_;
  std::vector<std::int64_t> offset_;
  std::int64_t table_rows_ = 0;
  int largest_, most_taps_ = 0;
};

}  // namespace ntk
