// The GPU's backend: vectors.cu, and images of one precision a file (images_float.cu,
// images_double.cu), so that they compile side by side.
#pragma once

#include "../backend.h"

namespace ntk {

struct Cuda {
  static void vectors(const Tile<float>& tile, StreamOf stream);
  static void vectors(const Tile<double>& tile, StreamOf stream);
  static void images(const ImageTile<float>& tile, StreamOf stream);
  static void images(const ImageTile<double>& tile, StreamOf stream);
};

}  // namespace ntk
