// Where a tile of results holds NaN or infinity.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <optional>
#include <type_traits>
#include <utility>

namespace ntk {

// Has the exponent of infinity and NaN? On the bits, so that the compiler takes many at once.
template <class T>
bool row_is_finite(const T* row, std::int64_t count) {
  using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
  constexpr Bits exponent = sizeof(T) == 4 ? Bits(0x7f800000) : Bits(0x7ff0000000000000);
  constexpr Bits step = exponent & (~exponent + 1);  // the exponent's lowest bit: adding it carries into the sign
  Bits carried = 0;
  for (std::int64_t j = 0; j < count; ++j) {
    Bits bits;
    std::memcpy(&bits, row + j, sizeof bits);
    carried |= (bits & exponent) + step;
  }
  return !(carried >> (8 * sizeof(T) - 1));
}

// Row and column of a result that is not finite, if there is one; right of the diagonal only, if upper.
template <class T>
std::optional<std::pair<std::int64_t, std::int64_t>> find_not_finite(T* const* results, int count, std::int64_t rows,
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
