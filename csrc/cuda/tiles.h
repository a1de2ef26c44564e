// The GPU's backend: vectors.cu, and images (images_float.cu, images_double.cu) and full
// covariances (full_float.cu, full_double.cu) of one precision a file, so that they compile side by
// side.
#pragma once

#include "../backend.h"

namespace ntk {

struct Cuda {
  static void vectors(const Tile<float>& tile, StreamOf stream);
  static void vectors(const Tile<double>& tile, StreamOf stream);
  static void images(const ImageTile<float>& tile, StreamOf stream);
  static void images(const ImageTile<double>& tile, StreamOf stream);
  static void full(const FullTile<float>& tile, StreamOf stream);
  static void full(const FullTile<double>& tile, StreamOf stream);
};

}  // namespace ntk
