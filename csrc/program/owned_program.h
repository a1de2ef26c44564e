// A program with its ops, as Python holds it. Not in an anonymous namespace: both modules speak of
// it.
#pragma once

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

 private:
  std::vector<Op> ops_;
  int slots_, outputs_;
  Tables tables_;
};

}  // namespace ntk
