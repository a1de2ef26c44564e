// Owns a plane program and works out, once, what its execution needs: segments, the planes each
// needs, fast paths.
#pragma once

#include <array>
#include <vector>

#include "owned_program.h"
#include "plane_program.h"

namespace ntk {

// Which displacements |d| < n along one axis are needed; n and d are those of a segment's start.
class Need {
 public:
  explicit Need(int n) : n_(n), of_(2 * n - 1, 0) {}
  const unsigned char* data() const { return of_.data(); }
  bool has(int d) const { return of_[d + n_ - 1]; }
  void add(std::int64_t d) {
    if (d > -n_ && d < n_) of_[d + n_ - 1] = 1;
  }
  // |d| <= reach of an image that is `scale` times smaller.
  void add_up_to(int reach, int scale);
  // d = stride D + e, |e| < window, for the D that are needed after a pool of an image that is
  // `scale` times smaller.
  void add_pool(const Axis& pool, const Need& after, int scale);
  // A circular convolution reads a plane's mates d +- period too.
  void close_circular(int period);

 private:
  int n_;
  std::vector<unsigned char> of_;
};

class PlaneSchedule {
 public:
  // shape: height, width, channels.
  PlaneSchedule(std::vector<PlaneOp> ops, int slots, OwnedProgram head, std::array<int, 3> shape);
  PlaneProgram view() const;
  // The same program cut after segment `last`, needing only what the d = 0 plane of that segment
  // needs.
  PlaneProgram near(int last) const;
  // Elements of a strip's table, and where each op's features start.
  std::int64_t table_size() const { return table_size_; }
  const std::int64_t* offset() const { return offset_.data(); }
  bool head_needs_variance() const { return head_.needs_variance(); }
  // Points of all planes of a pair times the ops on them.
  double work() const;
  // Is K(s x, s' x') = s s' K(x, x') for all s, s' > 0: convolutions without bias, ReLU and its
  // like, no normalisation?
  bool homogeneous() const;
  // Does every window lie evenly between left and right, so that K(flip x, flip x') = K(x, x')?
  bool flip_symmetric() const;

 private:
  struct Needs {
    Need h, w;
  };
  void find_segments();
  void find_fast_paths();
  // Of all segments, or of those up to `last` where only its d = 0 plane is wanted.
  std::vector<Needs> all_needs() const;
  std::vector<Needs> near_needs(int last) const;
  std::vector<Needs> no_needs() const;
  // What segment s needs besides, for what is needed of the next one; circular convolutions closed.
  void add_upstream(std::vector<Needs>& needs, int s, bool pooled) const;
  Strides strides_at_end(const Segment& segment) const;
  std::vector<Segment> segments_with(const std::vector<Needs>& needs) const;

  std::vector<PlaneOp> ops_;
  int slots_;
  OwnedProgram head_;
  int h_, w_, channels_;
  std::vector<Segment> cuts_;
  std::vector<Needs> full_needs_;
  std::vector<Segment> full_;
  std::vector<std::vector<Needs>> near_needs_;
  std::vector<std::vector<Segment>> near_;
  std::vector<std::int64_t> offset_;
  std::int64_t table_size_ = 0;
};

}  // namespace ntk
