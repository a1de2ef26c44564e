// A program with its ops, as Python holds it. Not in an anonymous namespace: both modules speak of
// it.
#pragma once

#include <utility>
#include <vector>

#include "program.h"

namespace ntk {

class OwnedProgram {
 public:
  OwnedProgram(std::vector<Op> ops, int slots, int outputs)
      : ops_(std::move(ops)), slots_(slots), outputs_(outputs) {}
  Program view() const { return {ops_.data(), int(ops_.size()), slots_, outputs_}; }

 private:
  std::vector<Op> ops_;
  int slots_, outputs_;
};

}  // namespace ntk
