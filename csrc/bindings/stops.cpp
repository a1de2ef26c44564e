// How a long call ends early, and the process with it.
#include <pybind11/pybind11.h>

#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <string>
#include <thread>

#include "../stop.h"
#include "bind.h"

namespace ntk {
namespace {

namespace py = pybind11;

// A flag that ends the engine's calls in every thread that obeys it.
class Stop {
 public:
  void set() { __atomic_store_n(&flag_, true, __ATOMIC_RELAXED); }
  bool is_set() const { return __atomic_load_n(&flag_, __ATOMIC_RELAXED); }
  const bool* flag() const { return &flag_; }

 private:
  bool flag_ = false;
};

// A thread that waits for SIGINT's number at the read end of Python's wakeup pipe, then ends the
// process in so many seconds, whoever holds the GIL.
void leave_after_interrupt(int pipe, double seconds, std::string line) {
  std::thread([=] {
    for (unsigned char signal = 0; ::read(pipe, &signal, 1) == 1;) {
      if (signal != SIGINT) continue;
      std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
      const auto told = ::write(STDERR_FILENO, line.data(), line.size());
      static_cast<void>(told);
      std::_Exit(130);
    }
  }).detach();
}

}  // namespace

void bind_stops(py::module_& m) {
  py::register_exception<Stopped>(m, "StoppedError", PyExc_RuntimeError);
  py::class_<Stop>(m, "Stop",
                   "Ends the engine's calls in the threads that obey it; see csrc/stop.h.")
      .def(py::init<>())
      .def("set", &Stop::set)
      .def("is_set", &Stop::is_set);
  m.def(
      "obey", [](const Stop* stop) { stop_flag = stop ? stop->flag() : nullptr; },
      "The calling thread's Stop, which must outlive it there; None: nobody ends its calls.",
      py::arg("stop").none(true));
  m.def("leave_after_interrupt", &leave_after_interrupt,
        "Ends the process some seconds after SIGINT, whoever holds the GIL.", py::arg("pipe"),
        py::arg("seconds"), py::arg("line"));
}

}  // namespace ntk
