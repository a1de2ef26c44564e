// Images from the strips of the CPU's tables (ImagesView) to the GPU's order: one image after
// another.
#pragma once

#include "tori.h"

namespace ntk {

// Number `offset` + p `step` of every pixel p of an image, times `scale`, into PairLayout.
template <class T>
struct PackPairs {
  const T* from;             // [strip][number][lane]
  std::int64_t from_stride;  // of strips
  std::int64_t first;        // image
  std::int64_t offset;
  int step, h, w;
  T scale;
  T* to;
  std::int64_t to_stride;  // of images

  NTK_HD void operator()(std::int64_t image, int i) const {
    constexpr int N = kImageLanes<T>;
    const PairLayout layout = pair_layout<T>(h, w);
    const int pair = i / 2 % layout.pairs, r = i / 2 / layout.pairs % layout.rows;
    const int parity = i / 2 / layout.pairs / layout.rows;
    const int pixel = r % h * w + (2 * pair + parity + i % 2) % w;
    const std::int64_t n = first + image;
    to[image * to_stride + i] =
        scale * from[n / N * from_stride + (offset + std::int64_t(pixel) * step) * N + n % N];
  }
};

// Both features of one op, its rows twice.
template <class T>
struct PackTable {
  ImagesView<T> from;
  std::int64_t first, offset;  // first image; where the op's features start
  int size;                    // their number, 2 h w
  T* to;
  std::int64_t to_stride;  // of images

  NTK_HD void operator()(std::int64_t image, int k) const {
    constexpr int N = kImageLanes<T>;
    const std::int64_t n = first + image;
    T* const out = to + image * to_stride + k;
    out[0] = out[size] = from.table[n / N * from.table_stride + (offset + k) * N + n % N];
  }
};

}  // namespace ntk
