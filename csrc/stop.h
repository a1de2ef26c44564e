// How a long call ends early: the thread that computes looks at its flag before every plane of
// images.
#pragma once

#include <stdexcept>

namespace ntk {

// The calling thread's flag, set by another thread; null: nobody will. `__thread`, for C++'s
// thread_local would bring a weak function into every instruction set's object.
extern __thread const bool* stop_flag;

struct Stopped : std::runtime_error {
  Stopped() : std::runtime_error("stopped") {}
};

namespace {

__attribute__((always_inline)) inline bool stopped() {
  const bool* const flag = stop_flag;
  return flag && __atomic_load_n(flag, __ATOMIC_RELAXED);
}

}  // namespace
}  // namespace ntk
