// Where a tile of results holds NaN or infinity.
#pragma once

#include <cmath>
#include <cstdint>
#include <optional>
#include <utility>

namespace ntk {

// Row and column of a result that is not finite, if there is one; right of the diagonal only, if upper.
template <class T>
std::optional<std::pair<std::int64_t, std::int64_t>> find_not_finite(bool (*row_is_finite)(const T*, std::int64_t),
                                                                     T* const* results, int count, std::int64_t rows,
                                                                     std::int64_t cols, std::int64_t stride,
                                                                     bool upper) {
  for (int o = 0; o < count; ++o)
    for (std::int64_t i = 0; results[o] && i < rows; ++i) {
      const std::int64_t first = upper ? i + 1 : 0;
      const T* row = results[o] + i * stride;
      if (first >= cols || row_is_finite(row + first, cols - first)) continue;
      for (std::int64_t j = first; j < cols; ++j)
        if (!std::isfinite(row[j])) return std::pair(i, j);
    }
  return std::nullopt;
}

}  // namespace ntk
