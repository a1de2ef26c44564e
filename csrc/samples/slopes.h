// What the gradient needs of points: features and variances of every op with their derivatives
// (views.h).
#pragma once

#include <vector>

#include "../program/program.h"
#include "views.h"

namespace ntk {

class Slopes {
 public:
  Slopes(const Program& program, const PointsView<double>& points);
  const double* table() const { return table_.data(); }

 private:
  std::vector<double> table_;
};

}  // namespace ntk
