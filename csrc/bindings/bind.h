// The parts of the CPU module, a file each: NAME.cpp holds bind_NAME.
#pragma once

#include <pybind11/pybind11.h>

#include <string>

#include "../backend.h"

namespace ntk {

void bind_backends(pybind11::module_& m);
void bind_stops(pybind11::module_& m);
void bind_programs(pybind11::module_& m);
void bind_image_programs(pybind11::module_& m);
void bind_full_programs(pybind11::module_& m);
void bind_vectors(pybind11::module_& m);
void bind_gradients(pybind11::module_& m);
void bind_images(pybind11::module_& m);
void bind_full(pybind11::module_& m);

// The backend of this name; ValueError where there is none or it cannot run here.
const Backend& backend_named(const std::string& name);

}  // namespace ntk
