// The results of a tile as Python hands them over: checked, as pointers, and looked at for NaN and
// infinity.
#pragma once

#include <cmath>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "../backend.h"
#include "checks.h"

namespace ntk {

// One matrix, or None where not wanted, per output.
using Arrays = std::vector<std::optional<py::array>>;

// Row and column, in its tile, of a result that is not finite.
using Found = std::optional<std::pair<std::int64_t, std::int64_t>>;

// A tile's size, and how far apart the rows of its results lie.
struct TileShape {
  std::int64_t rows, cols, stride;
  TileShape mirrored() const { return {cols, rows, stride}; }
};

// That of the first result that is wanted.
inline TileShape shape_of(const Arrays& results, const Arrays& more = {}) {
  for (const Arrays* list : {&results, &more})
    for (const auto& result : *list) {
      if (!result) continue;
      require(result->ndim() == 2, "evaluate: a result must be a matrix");
      return {result->shape(0), result->shape(1), result->strides(0) / result->itemsize()};
    }
  throw py::value_error("evaluate: no result is wanted");
}

// Samples against samples, from the pair (row, col) on.
template <class Samples>
struct Pairs {
  const Samples &rows, &cols;
  std::int64_t row, col;

  // Where a tile of this shape lies among `height` x `width` pairs; its first column is a multiple
  // of `unit`.
  Place place(const std::string& call, TileShape tile, std::int64_t height, std::int64_t width,
              std::int64_t unit) const {
    require(row >= 0 && tile.rows >= 1 && row <= height - tile.rows, call + ": rows out of range");
    const bool inside = col >= 0 && tile.cols >= 1 && col <= width - tile.cols;
    require(inside && col % unit == 0, call + ": columns out of range");
    return {row, tile.rows, col, tile.cols};
  }
};

template <class T>
std::vector<T*> pointers(Arrays& results, int outputs, TileShape shape) {
  require(std::int64_t(results.size()) == outputs,
          "evaluate: one result (or None) per output is needed");
  const std::int64_t pitch = shape.stride * std::int64_t(sizeof(T));
  std::vector<T*> out;
  for (auto& result : results) {
    if (!result) {
      out.push_back(nullptr);
      continue;
    }
    py::array& a = *result;
    require(py::isinstance<py::array_t<T>>(a),
            "evaluate: a result's dtype differs from the points'");
    const bool fits = a.ndim() == 2 && a.shape(0) == shape.rows && a.shape(1) == shape.cols;
    require(fits, "evaluate: a result's shape is not the tile's");
    const bool contiguous = shape.cols == 1 || a.strides(1) == std::int64_t(sizeof(T));
    require(contiguous, "evaluate: a result's rows are not contiguous");
    require(shape.rows == 1 || a.strides(0) == pitch, "evaluate: results differ in row stride");
    out.push_back(static_cast<T*>(a.mutable_data()));  // raises where not writeable
  }
  return out;
}

// Both kernels and their mirror images, in Python's order.
struct ResultArrays {
  Arrays nngp, ntk, nngp_mirror, ntk_mirror;
};

template <class T>
class ResultPointers {
 public:
  ResultPointers(ResultArrays& from, int outputs, TileShape shape)
      : shape_(shape),
        nngp_(pointers<T>(from.nngp, outputs, shape)),
        ntk_(pointers<T>(from.ntk, outputs, shape)),
        nngp_mirror_(pointers<T>(from.nngp_mirror, outputs, shape.mirrored())),
        ntk_mirror_(pointers<T>(from.ntk_mirror, outputs, shape.mirrored())) {}

  Results<T> view() const {
    return {nngp_.data(), ntk_.data(), nngp_mirror_.data(), ntk_mirror_.data(), shape_.stride};
  }
  // A result that is not finite, if there is one; right of the diagonal only, if `upper`.
  Found not_finite(const Backend& backend, bool upper) const {
    for (const auto* list : {&nngp_, &ntk_})
      for (const T* result : *list)
        if (const Found found = result ? not_finite(backend, result, upper) : Found{}) return found;
    return std::nullopt;
  }

 private:
  Found not_finite(const Backend& backend, const T* result, bool upper) const {
    for (std::int64_t i = 0; i < shape_.rows; ++i) {
      const std::int64_t first = upper ? i + 1 : 0;
      const T* row = result + i * shape_.stride;
      if (first >= shape_.cols || backend.in<T>().is_finite(row + first, shape_.cols - first))
        continue;
      for (std::int64_t j = first; j < shape_.cols; ++j)
        if (!std::isfinite(row[j])) return std::pair(i, j);
    }
    return std::nullopt;
  }

  TileShape shape_;
  std::vector<T*> nngp_, ntk_, nngp_mirror_, ntk_mirror_;
};

}  // namespace ntk
