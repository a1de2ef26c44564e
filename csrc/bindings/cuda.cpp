// The CUDA module: addresses on the device and a stream in, nothing synchronised. Needs the types
// that _core registers.
#include <cuda_runtime_api.h>

#include "../cuda/tiles.h"
#include "device.h"

namespace ntk {
namespace {

// CUDA versions as 1000 major + 10 minor; devices as (name, compute capability 10 major + minor,
// bytes).
py::dict machine() {
  py::dict out;
  int runtime = 0, driver = 0, devices = 0;
  cudaRuntimeGetVersion(&runtime);
  cudaDriverGetVersion(&driver);
  const cudaError_t error = cudaGetDeviceCount(&devices);
  out["runtime"] = runtime;
  out["driver"] = driver;
  out["error"] = error == cudaSuccess ? py::object(py::none())
                                      : py::object(py::str(cudaGetErrorString(error)));
  py::list found;
  for (int d = 0; error == cudaSuccess && d < devices; ++d) {
    cudaDeviceProp properties;
    if (cudaGetDeviceProperties(&properties, d) != cudaSuccess) continue;
    found.append(py::make_tuple(std::string(properties.name),
                                10 * properties.major + properties.minor,
                                std::int64_t(properties.totalGlobalMem)));
  }
  cudaGetLastError();
  out["devices"] = found;
  return out;
}

}  // namespace
}  // namespace ntk

PYBIND11_MODULE(_cuda, m, pybind11::mod_gil_not_used(),
                pybind11::multiple_interpreters::not_supported()) {
  using namespace ntk;
  py::module_::import("ntkcore._core");
  m.doc() = "The CUDA engine of ntkcore: tiles of pairs by the addresses of arrays on the device.";
  m.attr("ARCHITECTURES") = NTK_CUDA_ARCHITECTURES;
  m.def("machine", &machine, "Driver, runtime, devices, and the error that hides them.");
  bind_device<Cuda>(m);
}
