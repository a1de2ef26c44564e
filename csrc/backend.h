// The executors: one interface, a list of members. Each evaluates a program on a tile of pairs.
#pragma once

#include "program/plane_program.h"
#include "samples/views.h"

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
  std::int64_t stride;    // of the results' rows
  T* const* nngp_mirror;  // per output: where the transposed tile goes, or null
  T* const* ntk_mirror;
  bool diagonal;    // rows and columns are the same points: one triangle is computed, the diagonal is exact
  void* workspace;  // workspace_bytes(program), aligned for double
};

// Rows [row, row + rows) of one block of images against columns [col, col + cols) of another, col a multiple of
// kImageLanes<T>. Results and their transposes go where nngp, ntk, nngp_mirror, ntk_mirror point, as in Tile.
template <class T>
struct ImageTile {
  PlaneProgram program;
  ImagesView<T> row_images, col_images;
  std::int64_t row, rows, col, cols;
  T* const* nngp;
  T* const* ntk;
  std::int64_t stride;
  T* const* nngp_mirror;
  T* const* ntk_mirror;
  bool diagonal;    // the same images: only pairs with column > row are computed
  void* workspace;  // image_bytes(program), aligned to 64
};

// Derivatives of a kernel's values, by one reverse sweep over the program for every pair: with respect to the constants of
// its affine ops, and to the three scalars <x, x'>/d, |x|^2/d, |x'|^2/d that it starts from. Double precision only.

// Something the constants (a, b, e, f) of affine or emit op number `op` depend on, with these slopes: result number
// `result` gathers it. Several knobs may share a result.
struct Knob {
  int op, result;
  double slope[4];
};

// Rows [row, row + rows) against columns [col, col + cols), as in Tile. Results 0 … results - 4 are those of the knobs,
// the last three the derivatives with respect to <x, x'>/d, |x|^2/d and |x'|^2/d; null where not wanted.
struct GradientTile {
  Program program;
  const Knob* knobs;  // in the order of their ops
  int knob_count;
  int results;
  SlopesView row_points, col_points;
  std::int64_t row, rows, col, cols;
  const double* dot;
  std::int64_t dot_stride;
  bool ntk;  // of which kernel
  double* const* out;
  std::int64_t stride;
  void* workspace;  // gradient_bytes(program, results), aligned to 64
};

constexpr int kTapeVectors = 10, kSlotVectors = 6;  // cpu/gradient.h's Step; a slot's values and adjoints

inline std::int64_t gradient_bytes(const Program& program, int results) {
  return 64 * (kTapeVectors * std::int64_t(program.size) + kSlotVectors * std::int64_t(program.slots) + results);
}

// The pairs (x, x) of one strip of kImageLanes<double> images: fills `table` with the features of all plane ops and,
// if `complete`, adds to `readouts` [head slot][2][kImageLanes<double>].
struct SelfStrip {
  const PlaneProgram* near;  // per segment: the program that reaches its d = 0 plane
  PlaneProgram program;
  const std::int64_t* offset;  // of the ops' features
  const double* pixels;        // [h w][channels][lane]
  double* table;
  double* readouts;
  bool complete;
  void* workspace;
};

// A stream of a GPU.
struct StreamOf {
  int device;
  std::uintptr_t stream;
};

struct Extremes {
  float low, high;
};

struct Backend {
  const char* name;
  const char* missing;  // why it cannot run here; null when it can
  void (*evaluate_float)(const Tile<float>&);
  void (*evaluate_double)(const Tile<double>&);
  void (*images_float)(const ImageTile<float>&);
  void (*images_double)(const ImageTile<double>&);
  void (*gradient)(const GradientTile&);
  void (*self_strip)(const SelfStrip&);
  std::int64_t (*image_bytes)(const PlaneProgram&);
  Extremes (*extremes)(const float* data, std::int64_t rows, std::int64_t cols, std::int64_t stride);
  bool (*finite_float)(const float* data, std::int64_t count);
  bool (*finite_double)(const double* data, std::int64_t count);
};

std::int64_t workspace_bytes(const Program& program);

// All backends this build knows, best first. `count` receives how many.
const Backend* backends(int* count);

}  // namespace ntk
