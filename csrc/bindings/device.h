// What Python calls on a device: one tile of pairs, by the addresses of arrays that lie there. A
// Runner's vectors(tile, stream), images(tile, stream) and full(tile, stream) run a tile for float
// and for double.
#pragma once

#include <array>
#include <memory>
#include <type_traits>
#include <vector>

#include "../backend.h"
#include "../program/full_schedule.h"
#include "../program/owned_program.h"
#include "../program/plane_schedule.h"
#include "checks.h"

namespace ntk {

using Address = std::uintptr_t;

// size, width, stride; addresses of unit, root, table, nngp, ntk: PointsView.
using PointArrays = std::array<Address, 8>;
// size; addresses and strides of pixels, table, head table: ImagesView.
using ImageArrays = std::array<Address, 7>;
// row, rows, col, cols.
using PlaceArray = std::array<std::int64_t, 4>;
// Addresses of element (0, 0) of the tile, per output; 0 where not wanted.
using Addresses = std::vector<Address>;

inline Place place_of(const PlaceArray& a) { return {a[0], a[1], a[2], a[3]}; }

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

// Where the results of a tile go on the device.
template <class T>
class DeviceResults {
 public:
  DeviceResults(const std::array<Addresses, 4>& from, int outputs, std::int64_t stride)
      : stride_(stride) {
    for (int k = 0; k < 4; ++k) {
      require(int(from[k].size()) == outputs, "one address (or 0) per output is needed");
      for (const Address address : from[k]) lists_[k].push_back(reinterpret_cast<T*>(address));
    }
  }
  Results<T> view() const {
    return {lists_[0].data(), lists_[1].data(), lists_[2].data(), lists_[3].data(), stride_};
  }

 private:
  std::vector<T*> lists_[4];
  std::int64_t stride_;
};

// A tile as Python hands it over, of pairs of vectors or of images.
template <class Samples>
struct DeviceTile {
  const Samples &rows, &cols;
  Place place;
  const std::array<Addresses, 4>& out;
  std::int64_t stride;
  bool diagonal;
  StreamOf stream;
};

template <class T, class Runner>
void evaluate_vectors(const OwnedProgram& program, const DeviceTile<PointArrays>& from, Address dot,
                      std::int64_t dot_stride) {
  const Program view = program.view();
  const DeviceResults<T> out(from.out, view.outputs, from.stride);
  const T* products = reinterpret_cast<const T*>(dot);
  const PointsView<T> rows = points_view<T>(from.rows), cols = points_view<T>(from.cols);
  const Tile<T> tile{from.place, out.view(), view,          rows,   cols,
                     products,   dot_stride, from.diagonal, nullptr};
  py::gil_scoped_release release;
  Runner::vectors(tile, from.stream);
}

// Pairs of samples with positions: on planes, or by full covariances.
template <class T, class Schedule>
using TileOf =
    std::conditional_t<std::is_same_v<Schedule, PlaneSchedule>, ImageTile<T>, FullTile<T>>;

template <class T, class Runner, class Schedule>
void evaluate_image_pairs(const Schedule& program, const DeviceTile<ImageArrays>& from) {
  const auto view = program.view();
  const DeviceResults<T> out(from.out, view.head.outputs, from.stride);
  const ImagesView<T> rows = images_view<T>(from.rows, program.offset());
  const ImagesView<T> cols = images_view<T>(from.cols, program.offset());
  const TileOf<T, Schedule> tile{from.place, out.view(), view, rows, cols, from.diagonal, nullptr};
  py::gil_scoped_release release;
  if constexpr (std::is_same_v<Schedule, PlaneSchedule>)
    Runner::images(tile, from.stream);
  else
    Runner::full(tile, from.stream);
}

template <class Runner, class Schedule>
void bind_image_pairs(py::module_& m, const char* documentation) {
  m.def(
      "evaluate_images",
      [](const Schedule& program, const ImageArrays& rows, const ImageArrays& cols,
         const PlaceArray& at, const std::array<Addresses, 4>& out, std::int64_t stride,
         bool diagonal, bool in_double, int device, Address stream) {
        const auto call = in_double ? evaluate_image_pairs<double, Runner, Schedule>
                                    : evaluate_image_pairs<float, Runner, Schedule>;
        call(program, {rows, cols, place_of(at), out, stride, diagonal, {device, stream}});
      },
      documentation, py::arg("program"), py::arg("rows"), py::arg("cols"), py::arg("place"),
      py::arg("out"), py::arg("stride"), py::arg("diagonal"), py::arg("in_double"),
      py::arg("device"), py::arg("stream"));
}

template <class Runner>
void bind_device(py::module_& m) {
  m.def(
      "evaluate",
      [](const OwnedProgram& program, const PointArrays& rows, const PointArrays& cols,
         const PlaceArray& at, Address dot, std::int64_t dot_stride,
         const std::array<Addresses, 4>& out, std::int64_t stride, bool diagonal, bool in_double,
         int device, Address stream) {
        const auto call =
            in_double ? evaluate_vectors<double, Runner> : evaluate_vectors<float, Runner>;
        call(program, {rows, cols, place_of(at), out, stride, diagonal, {device, stream}}, dot,
             dot_stride);
      },
      "One tile of pairs of vectors.", py::arg("program"), py::arg("rows"), py::arg("cols"),
      py::arg("place"), py::arg("dot"), py::arg("dot_stride"), py::arg("out"), py::arg("stride"),
      py::arg("diagonal"), py::arg("in_double"), py::arg("device"), py::arg("stream"));
  bind_image_pairs<Runner, PlaneSchedule>(m, "One tile of pairs of images.");
  bind_image_pairs<Runner, FullSchedule>(m, "One tile of pairs by full covariances.");
}

}  // namespace ntk
