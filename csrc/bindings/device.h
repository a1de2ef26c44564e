// What Python calls on a device: one tile of pairs, by the addresses of arrays that lie there. A Runner's vectors(tile,
// stream) and images(tile, stream) run a tile for float and for double.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <memory>
#include <vector>

#include "../backend.h"
#include "../cuda/pairs.h"
#include "../program/owned_program.h"
#include "../program/plane_schedule.h"

namespace ntk {

using Address = std::uintptr_t;

// size, width, stride; addresses of unit, root, table, nngp, ntk: PointsView.
using PointArrays = std::array<Address, 8>;
// size; addresses and strides of pixels, table, head table: ImagesView.
using ImageArrays = std::array<Address, 7>;
// row, rows, col, cols.
using Place = std::array<std::int64_t, 4>;
// Addresses of element (0, 0) of the tile, per output; 0 where not wanted.
using Addresses = std::vector<Address>;

template <class T>
PointsView<T> points_view(const PointArrays& a) {
  return {std::int64_t(a[0]),
          std::int64_t(a[1]),
          std::int64_t(a[2]),
          reinterpret_cast<const T*>(a[3]),
          reinterpret_cast<const T*>(a[4]),
          reinterpret_cast<const T*>(a[5]),
          reinterpret_cast<const double*>(a[6]),
          reinterpret_cast<const double*>(a[7])};
}

template <class T>
ImagesView<T> images_view(const ImageArrays& a, const std::int64_t* offset) {
  return {std::int64_t(a[0]),
          reinterpret_cast<const T*>(a[1]),
          std::int64_t(a[2]),
          reinterpret_cast<const T*>(a[3]),
          std::int64_t(a[4]),
          offset,
          reinterpret_cast<const T*>(a[5]),
          std::int64_t(a[6])};
}

template <class T>
std::vector<T*> results(const Addresses& from, int outputs) {
  if (int(from.size()) != outputs) throw pybind11::value_error("one address (or 0) per output is needed");
  std::vector<T*> out;
  for (const Address address : from) out.push_back(reinterpret_cast<T*>(address));
  return out;
}

template <class T, class Runner>
void evaluate_vectors(const OwnedProgram& program, const PointArrays& rows, const PointArrays& cols, const Place& place,
                      Address dot, std::int64_t dot_stride, const std::array<Addresses, 4>& out, std::int64_t stride,
                      bool diagonal, StreamOf stream) {
  const Program view = program.view();
  if (view.slots > kMostSlots) throw pybind11::value_error("a program on the GPU has at most 64 slots");
  std::vector<T*> at[4];
  for (int k = 0; k < 4; ++k) at[k] = results<T>(out[k], view.outputs);
  const Tile<T> tile{view,
                     points_view<T>(rows),
                     points_view<T>(cols),
                     place[0],
                     place[1],
                     place[2],
                     place[3],
                     reinterpret_cast<const T*>(dot),
                     dot_stride,
                     at[0].data(),
                     at[1].data(),
                     stride,
                     at[2].data(),
                     at[3].data(),
                     diagonal,
                     nullptr};
  pybind11::gil_scoped_release release;
  Runner::vectors(tile, stream);
}

template <class T, class Runner>
void evaluate_image_pairs(const PlaneSchedule& program, const ImageArrays& rows, const ImageArrays& cols,
                          const Place& place, const std::array<Addresses, 4>& out, std::int64_t stride, bool diagonal,
                          StreamOf stream) {
  const PlaneProgram view = program.view();
  if (view.head.slots > kMostSlots) throw pybind11::value_error("a program on the GPU has at most 64 slots");
  std::vector<T*> at[4];
  for (int k = 0; k < 4; ++k) at[k] = results<T>(out[k], view.head.outputs);
  const ImageTile<T> tile{view,
                          images_view<T>(rows, program.offset()),
                          images_view<T>(cols, program.offset()),
                          place[0],
                          place[1],
                          place[2],
                          place[3],
                          at[0].data(),
                          at[1].data(),
                          stride,
                          at[2].data(),
                          at[3].data(),
                          diagonal,
                          nullptr};
  pybind11::gil_scoped_release release;
  Runner::images(tile, stream);
}

template <class Runner>
void bind_device(pybind11::module_& m) {
  namespace py = pybind11;
  m.def(
      "evaluate",
      [](const OwnedProgram& program, const PointArrays& rows, const PointArrays& cols, const Place& place, Address dot,
         std::int64_t dot_stride, const std::array<Addresses, 4>& out, std::int64_t stride, bool diagonal,
         bool in_double, int device, Address stream) {
        const auto call = in_double ? evaluate_vectors<double, Runner> : evaluate_vectors<float, Runner>;
        call(program, rows, cols, place, dot, dot_stride, out, stride, diagonal, {device, stream});
      },
      "One tile of pairs of vectors.", py::arg("program"), py::arg("rows"), py::arg("cols"), py::arg("place"),
      py::arg("dot"), py::arg("dot_stride"), py::arg("out"), py::arg("stride"), py::arg("diagonal"),
      py::arg("in_double"), py::arg("device"), py::arg("stream"));
  m.def(
      "evaluate_images",
      [](const PlaneSchedule& program, const ImageArrays& rows, const ImageArrays& cols, const Place& place,
         const std::array<Addresses, 4>& out, std::int64_t stride, bool diagonal, bool in_double, int device,
         Address stream) {
        const auto call = in_double ? evaluate_image_pairs<double, Runner> : evaluate_image_pairs<float, Runner>;
        call(program, rows, cols, place, out, stride, diagonal, {device, stream});
      },
      "One tile of pairs of images.", py::arg("program"), py::arg("rows"), py::arg("cols"), py::arg("place"),
      py::arg("out"), py::arg("stride"), py::arg("diagonal"), py::arg("in_double"), py::arg("device"),
      py::arg("stream"));
}

}  // namespace ntk
