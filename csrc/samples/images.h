// A block of images in the order of the lanes, with what depends on one image only: see ImagesView.
#pragma once

#include <vector>

#include "../backend.h"
#include "../program/plane_schedule.h"

namespace ntk {

// The pairs (x, x): kernel diagonals [outputs][size] and the features of the head's ops [2
// ops][size].
struct ImageDiagonal {
  std::vector<double> nngp, ntk, head;
};

// The head's part of it, of sample n of `size`, from its read-outs [head slot][2][step].
void follow_head(const Program& head, const double* readouts, int step, std::int64_t n,
                 std::int64_t size, ImageDiagonal& out);

// Its features [2 ops][pitch] as they stand in a table [2 ops][stride].
template <class T>
std::vector<T> head_table(const Program& head, const double* features, std::int64_t size,
                          std::int64_t pitch, std::int64_t stride);

// Strips of images x: [size][h][w][channels], C order; the lanes beyond the last image hold nothing
// of use.
template <class T>
void image_strips(const PlaneSchedule& schedule, const Backend& backend, const T* x,
                  std::int64_t size, T* pixels, T* table);

template <class T>
class Images {
 public:
  // x: [size][h][w][channels], C order; head: [2 ops][head_pitch] as ImageDiagonal gives it, or
  // null without need.
  Images(const PlaneSchedule& schedule, const Backend& backend, const T* x, std::int64_t size,
         const double* head, std::int64_t head_pitch);
  ImagesView<T> view() const;
  std::int64_t size() const { return size_; }

 private:
  std::int64_t size_, pixels_stride_, table_stride_, head_stride_;
  std::vector<std::int64_t> offset_;
  std::vector<T> pixels_, table_, head_;
};

// All planes of the pairs (x, x), in double.
template <class T>
ImageDiagonal image_diagonal(const PlaneSchedule& schedule, const Backend& backend, const T* x,
                             std::int64_t size);

}  // namespace ntk
