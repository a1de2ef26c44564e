// The backends: one interface, a list of members. Each evaluates a program on a tile of pairs.
#pragma once

#include "program/full_program.h"
#include "program/plane_program.h"
#include "samples/views.h"

namespace ntk {

// Rows [row, row + rows) of some samples against columns [col, col + cols) of others.
struct Place {
  std::int64_t row, rows, col, cols;
};

// Where the results of a tile go. Per output: element (0, 0) of the tile, or null where not wanted;
// and where its transpose goes, or null.
template <class T>
struct Results {
  T* const* nngp;
  T* const* ntk;
  T* const* nngp_mirror;
  T* const* ntk_mirror;
  std::int64_t stride;  // of their rows
};

// Pairs of points. `dot` holds the scalar products of the unit vectors. The columns start at a
// multiple of kStrip or are fewer than a strip; `dot` is readable up to whole strips.
template <class T>
struct Tile : Place, Results<T> {
  Program program;
  PointsView<T> row_points, col_points;
  const T* dot;
  std::int64_t dot_stride;
  bool diagonal;    // the same points: one triangle is computed, the diagonal is exact
  void* workspace;  // workspace_bytes(program), aligned for double
};

// Pairs of images; col is a multiple of kImageLanes<T>.
template <class T>
struct ImageTile : Place, Results<T> {
  PlaneProgram program;
  ImagesView<T> row_images, col_images;
  bool diagonal;    // the same images: only pairs with column > row are computed
  void* workspace;  // image_bytes(program), aligned to 64
};

// Pairs of samples by full covariances. The samples are laid out as images are, each in a strip of
// its own: pixels are values [channel][pitch], the table holds rows of positions [row][pitch].
template <class T>
struct FullTile : Place, Results<T> {
  FullProgram program;
  ImagesView<T> row_images, col_images;
  bool diagonal;    // the same samples: only pairs with column > row are computed
  void* workspace;  // full_bytes(program), aligned to 64
};

// Derivatives of a kernel's values, by one reverse sweep over the program for every pair: with
// respect to the constants of its affine ops, and to the three scalars <x, x'>/d, |x|^2/d, |x'|^2/d
// that it starts from. Double precision only.

// Something the constants (a, b, e, f) of affine or emit op number `op` depend on, with these
// slopes: result number `result` gathers it. Several knobs may share a result.
struct Knob {
  int op, result;
  double slope[4];
};

// Results 0 … results - 4 are those of the knobs,
// the last three the derivatives with respect to <x, x'>/d, |x|^2/d and |x'|^2/d; null where not
// wanted.
struct GradientTile : Place {
  Program program;
  const Knob* knobs;  // in the order of their ops
  int knob_count;
  int results;
  SlopesView row_points, col_points;
  const double* dot;
  std::int64_t dot_stride;
  bool ntk;  // of which kernel
  double* const* out;
  std::int64_t stride;
  void* workspace;  // gradient_bytes(program, results), aligned to 64
};

// Step of cpu/gradient.h; a slot's values and adjoints.
constexpr int kTapeVectors = 10, kSlotVectors = 6;

inline std::int64_t gradient_bytes(const Program& program, int results) {
  return 64 * (kTapeVectors * std::int64_t(program.size) +
               kSlotVectors * std::int64_t(program.slots) + results);
}

// The pairs (x, x) of one strip of kImageLanes<double> images: fills `table` with the features of
// all plane ops and, if `complete`, adds to `readouts` [head slot][2][kImageLanes<double>].
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

// The pair (x, x) of one sample: fills `table` and, if `complete`, adds to `readouts` [head slot][2].
struct FullSelf {
  FullProgram program;
  const std::int64_t* offset;  // of the ops' features
  const double* values;        // [channel][pitch]
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

// What a backend does in one precision.
template <class T>
struct Calls {
  void (*evaluate)(const Tile<T>&);
  void (*evaluate_images)(const ImageTile<T>&);
  void (*evaluate_full)(const FullTile<T>&);
  bool (*is_finite)(const T* data, std::int64_t count);
};

struct Backend {
  const char* name;
  const char* missing;  // why it cannot run here; null when it can
  Calls<float> in_float;
  Calls<double> in_double;
  void (*gradient)(const GradientTile&);
  void (*self_strip)(const SelfStrip&);
  std::int64_t (*image_bytes)(const PlaneProgram&);
  void (*full_self)(const FullSelf&);
  std::int64_t (*full_bytes)(const FullProgram&);
  Extremes (*extremes)(const float* data, std::int64_t rows, std::int64_t cols,
                       std::int64_t stride);

  template <class T>
  const Calls<T>& in() const {
    if constexpr (sizeof(T) == sizeof(float))
      return in_float;
    else
      return in_double;
  }
};

std::int64_t workspace_bytes(const Program& program);

// All backends this build knows, best first. `count` receives how many.
const Backend* backends(int* count);

}  // namespace ntk
