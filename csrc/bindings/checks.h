// What every binding uses: arrays of one dtype, and refusals.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <map>
#include <string>

namespace ntk {

namespace py = pybind11;

template <class T>
using Array = py::array_t<T, py::array::c_style>;

inline void require(bool ok, const char* message) {
  if (!ok) throw py::value_error(message);
}
inline void require(bool ok, const std::string& message) { require(ok, message.c_str()); }

// The value called `name`; `what` says of what kind it is.
template <class Value>
Value find(const std::map<std::string, Value>& map, const std::string& name, const char* what) {
  const auto it = map.find(name);
  require(it != map.end(), std::string("unknown ") + what + " '" + name + "'");
  return it->second;
}

// Calls f with x as an array of float or of double; TypeError with `message` for any other.
template <class F>
auto with_precision(const py::array& x, const char* message, F&& f) {
  if (py::isinstance<Array<float>>(x)) return f(Array<float>(x));
  if (py::isinstance<Array<double>>(x)) return f(Array<double>(x));
  throw py::type_error(message);
}

}  // namespace ntk
