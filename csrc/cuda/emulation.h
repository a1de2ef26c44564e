// The GPU's executor on the host (emulation.cpp).
#pragma once

#include "../backend.h"

namespace ntk {

struct Emulation {
  static void vectors(const Tile<float>& tile, std::uintptr_t stream);
  static void vectors(const Tile<double>& tile, std::uintptr_t stream);
  static void images(const ImageTile<float>& tile, std::uintptr_t stream);
  static void images(const ImageTile<double>& tile, std::uintptr_t stream);
};

}  // namespace ntk
