// What ends a run: one line that says what went wrong, where.
#pragma once

#include <stdexcept>
#include <string>

namespace ptx {

struct Fault : std::runtime_error {
  explicit Fault(const std::string& what) : std::runtime_error("PTX: " + what) {}
};

}  // namespace ptx
