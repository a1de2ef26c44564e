// A program with its ops, as Python holds it. Not in an anonymous namespace: both modules speak of
// it.
#pragma once

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "program.h"

namespace ntk {

class OwnedProgram {
 public:
  using Tables = std::vector<std::shared_ptr<const std::vector<double>>>;
  // The tables are what the ops' constants point to.
  OwnedProgram(std::vector<Op> ops, int slots, int outputs, Tables tables)
      : ops_(std::move(ops)), slots_(slots), outputs_(outputs), tables_(std::move(tables)) {}
  Program view() const { return {ops_.data(), int(ops_.size()), slots_, outputs_}; }
  bool needs_variance() const {
    return std::any_of(ops_.begin(), ops_.end(),
                       [](const Op& op) { return op.kind == OpKind::pointwise; });
  }
  // Is K(s x, s' x') = s s' K(x, x') for all s, s' > 0 if it is so before?
  bool homogeneous() const {
    return std::all_of(ops_.begin(), ops_.end(), [](const Op& op) { return keeps_scale(op); });
  }

 private:
  std::vector<Op> ops_;
  int slots_, outputs_;
  Tables tables_;
};

}  // namespace ntk
