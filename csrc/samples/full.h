// A block of samples for full covariances, with what depends on one sample only: see FullTile.
#pragma once

#include "../program/full_schedule.h"
#include "images.h"

namespace ntk {

// Values and tables of samples x: [size][positions][width], C order, a strip of the pitch each;
// what lies beyond the positions is left alone, and is 0 of positions that are not in use.
template <class T>
void full_strips(const FullSchedule& schedule, const Backend& backend, const T* x,
                 std::int64_t size, T* values, T* table);

template <class T>
class FullSamples {
 public:
  // x: [size][positions][width], C order; head as of Images.
  FullSamples(const FullSchedule& schedule, const Backend& backend, const T* x, std::int64_t size,
              const double* head, std::int64_t head_pitch);
  ImagesView<T> view() const;

 private:
  std::int64_t size_, pixels_stride_, table_stride_, head_stride_;
  std::vector<std::int64_t> offset_;
  std::vector<T> pixels_, table_, head_;
};

// The pairs (x, x), in double.
template <class T>
ImageDiagonal full_diagonal(const FullSchedule& schedule, const Backend& backend, const T* x,
                            std::int64_t size);

}  // namespace ntk
