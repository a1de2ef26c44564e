// The executors: one interface, a list of members. Each evaluates a program on a tile of pairs.
#pragma once

#include "points.h"

namespace ntk {

// Rows [row, row + rows) against columns [col, col + cols). `dot` holds the scalar products of the unit vectors.
// The columns start at a multiple of kStrip or are fewer than a strip; `dot` is readable up to whole strips.
template <class T>
struct Tile {
  Program program;
  PointsView<T> row_points, col_points;
  std::int64_t row, rows, col, cols;
  const T* dot;
  std::int64_t dot_stride;
  T* const* nngp;  // per output: element (0, 0) of the tile in the result, or null where not wanted
  T* const* ntk;
  std::int64_t stride;   // of the results' rows
  T* const* nngp_mirror;  // per output: where the transposed tile goes, or null
  T* const* ntk_mirror;
  bool diagonal;  // rows and columns are the same points: one triangle is computed, the diagonal is exact
  void* workspace;  // workspace_bytes(program), aligned for double
};

struct Backend {
  const char* name;
  const char* missing;  // why it cannot run here; null when it can
  void (*evaluate_float)(const Tile<float>&);
  void (*evaluate_double)(const Tile<double>&);
};

std::int64_t workspace_bytes(const Program& program);

// All backends this build knows, best first. `count` receives how many.
const Backend* backends(int* count);

}  // namespace ntk
