// What a look at finished numbers tells: their extremes, and whether all are finite.
#pragma once

#include "simd.h"  // first, as in tile.h

#include "../backend.h"

namespace ntk {
namespace {

// Least and largest of a rectangle of at least one number; NaN is passed over.
template <class T>
Extremes find_extremes(const T* data, std::int64_t rows, std::int64_t cols, std::int64_t stride) {
  using V = typename Vector<T>::type;
  constexpr std::int64_t L = kLanes<T>;
  V low = splat(data[0]), high = low;
  Extremes found{data[0], data[0]};
  for (std::int64_t i = 0; i < rows; ++i) {
    const T* row = data + i * stride;
    std::int64_t j = 0;
    for (; j + L <= cols; j += L) {
      low = min(load(row + j), low);
      high = max(load(row + j), high);
    }
    for (; j < cols; ++j) found = {min(row[j], found.low), max(row[j], found.high)};
  }
  for (int l = 0; l < L; ++l) found = {min(low[l], found.low), max(high[l], found.high)};
  return found;
}

// x - x is 0 for what is finite, else NaN; sums of it stay so.
template <class T>
bool row_is_finite(const T* row, std::int64_t count) {
  using V = typename Vector<T>::type;
  constexpr std::int64_t L = kLanes<T>;
  V sums = V{};
  T sum = 0;
  std::int64_t j = 0;
  for (; j + L <= count; j += L) sums += load(row + j) - load(row + j);
  for (; j < count; ++j) sum += row[j] - row[j];
  for (int l = 0; l < L; ++l) sum += sums[l];
  return sum == 0;
}

}  // namespace
}  // namespace ntk
