// The head of a network of images, or of other positions: vector ops on the read-outs of one row
// and a vector of columns.
#pragma once

#include "strip.h"

namespace ntk {
namespace {

inline void* carve(char*& memory, std::int64_t bytes) {
  void* const taken = memory;
  memory += (bytes + 63) / 64 * 64;
  return taken;
}

// Scratch memory of one thread for it.
template <class T>
struct HeadScratch {
  T *slots, *outputs;
  double* readouts;  // [slot][2][kLanes]
  T **nngp, **ntk;
};

template <class T>
HeadScratch<T> make_head_scratch(const Program& head, char*& memory) {
  HeadScratch<T> s;
  s.slots = static_cast<T*>(carve(memory, 2 * head.slots * kStrip * sizeof(T)));
  s.outputs = static_cast<T*>(carve(memory, 2 * head.outputs * kImageLanes<T> * sizeof(T)));
  s.readouts =
      static_cast<double*>(carve(memory, 2 * head.slots * kImageLanes<T> * sizeof(double)));
  s.nngp = static_cast<T**>(carve(memory, head.outputs * sizeof(T*)));
  s.ntk = static_cast<T**>(carve(memory, head.outputs * sizeof(T*)));
  return s;
}

// The head: read-outs in, one vector of pairs of every output out.
template <class T, bool kNtk, class AnyTile>
void run_head(const AnyTile& tile, std::int64_t row, std::int64_t col, const HeadScratch<T>& s) {
  const Program& head = tile.program.head;
  constexpr int L = kLanes<T>;
  Tile<T> vectors{};
  vectors.program = head;
  vectors.row_points.table = tile.row_images.head_table;
  vectors.row_points.stride = tile.row_images.head_stride;
  vectors.col_points.table = tile.col_images.head_table;
  vectors.col_points.stride = tile.col_images.head_stride;
  for (int o = 0; o < head.outputs; ++o) {
    s.nngp[o] = tile.nngp[o] ? s.outputs + 2 * o * L : nullptr;
    s.ntk[o] = tile.ntk[o] ? s.outputs + (2 * o + 1) * L : nullptr;
  }
  vectors.nngp = s.nngp;
  vectors.ntk = s.ntk;
  const Strip<T> strip{s.slots, row, col, L};
  for (int slot = 0; slot < head.slots; ++slot)
    for (int l = 0; l < L; ++l) {
      strip.K(slot)[l] = T(s.readouts[2 * L * slot + l]);
      strip.Tk(slot)[l] = T(s.readouts[2 * L * slot + L + l]);
    }
  run_ops<T, kNtk>(vectors, strip, 0);
}

// Results of one row and one vector of columns to where they belong.
template <class T, class AnyTile>
void scatter(const AnyTile& tile, std::int64_t i, std::int64_t j0, const HeadScratch<T>& s) {
  constexpr int L = kLanes<T>;
  for (int o = 0; o < tile.program.head.outputs; ++o) {
    T* const outs[2] = {tile.nngp[o], tile.ntk[o]};
    T* const mirrors[2] = {tile.nngp_mirror[o], tile.ntk_mirror[o]};
    for (int which = 0; which < 2; ++which)
      for (std::int64_t j = j0; outs[which] && j < j0 + L && j < tile.cols; ++j) {
        if (tile.diagonal && j <= i) continue;
        const T value = s.outputs[(2 * o + which) * L + (j - j0)];
        outs[which][i * tile.stride + j] = value;
        if (mirrors[which]) mirrors[which][j * tile.stride + i] = value;
      }
  }
}

}  // namespace
}  // namespace ntk
