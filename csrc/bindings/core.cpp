// The CPU module, a table of contents. The files beside it check what Python hands over, release
// the GIL and call the engine; they hold no arithmetic.
#include "../cuda/emulation.h"
#include "bind.h"
#include "device.h"

// Calls share no state but what callers hand to them, so they need no GIL.
PYBIND11_MODULE(_core_of_main_interpreter, m, pybind11::mod_gil_not_used(),
                pybind11::multiple_interpreters::not_supported()) {
  m.doc() = "The CPU engine of ntkcore: programs, points, tiles.";
  ntk::bind_backends(m);
  ntk::bind_stops(m);
  ntk::bind_programs(m);
  ntk::bind_image_programs(m);
  ntk::bind_full_programs(m);
  ntk::bind_vectors(m);
  ntk::bind_gradients(m);
  ntk::bind_images(m);
  ntk::bind_full(m);
  auto emulated = m.def_submodule(
      "emulated_cuda", "The GPU's module on the host, for tests: pointers are the host's.");
  ntk::bind_device<ntk::Emulation>(emulated);
}

// pybind11 would wait for ever for the GIL of a subinterpreter that shares it.
PyMODINIT_FUNC PyInit__core() {
  if (PyInterpreterState_Get() == PyInterpreterState_Main())
    return PyInit__core_of_main_interpreter();
  PyErr_SetString(PyExc_ImportError,
                  "ntkcore does not run in a subinterpreter: import it in the main one");
  return nullptr;
}
