// The GPU's backend on the host (emulation.cpp).
#pragma once

#include "../backend.h"

namespace ntk {

struct Emulation {
  static void vectors(const Tile<float>& tile, StreamOf stream);
  static void vectors(const Tile<double>& tile, StreamOf stream);
  static void images(const ImageTile<float>& tile, StreamOf stream);
  static void images(const ImageTile<double>& tile, StreamOf stream);
  static void full(const FullTile<float>& tile, StreamOf stream);
  static void full(const FullTile<double>& tile, StreamOf stream);
};

}  // namespace ntk
