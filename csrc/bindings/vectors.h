// The points of one data matrix, as Python holds them.
#pragma once

#include <memory>
#include <variant>

#include "../program/owned_program.h"
#include "../samples/points.h"

namespace ntk {

// In float32 or float64; keeps its program alive.
struct AnyVectors {
  std::shared_ptr<OwnedProgram> program;
  std::variant<Points<float>, Points<double>> points;
};

}  // namespace ntk
