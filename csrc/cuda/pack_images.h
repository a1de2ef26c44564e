// Images from the strips of the CPU's tables (ImagesView) to the GPU's order: one image after another.
#pragma once

#include "tori.h"

namespace ntk {

template <class T>
struct PackPixels {
  ImagesView<T> from;
  std::int64_t first, size;  // first image; numbers of an image
  T* to;

  NTK_HD void operator()(std::int64_t i) const {
    constexpr int N = kImageLanes<T>;
    const std::int64_t image = first + i / size;
    to[i] = from.pixels[image / N * from.pixels_stride + i % size * N + image % N];
  }
};

// The features of one op, its rows twice. scale: what the fast path wants beside the features.
template <class T>
struct PackTable {
  ImagesView<T> from;
  std::int64_t first, offset, size;  // first image; where the op's 2 h w features start, and their number
  T scale[2];
  T* to;
  std::int64_t to_size;  // of an image's table

  NTK_HD void operator()(std::int64_t i) const {
    constexpr int N = kImageLanes<T>;
    const std::int64_t image = first + i / size, k = i % size;
    const T value = scale[k % 2] * from.table[image / N * from.table_stride + (offset + k) * N + image % N];
    T* const out = to + i / size * to_size + 2 * offset + k;
    out[0] = out[size] = value;
  }
};

}  // namespace ntk
