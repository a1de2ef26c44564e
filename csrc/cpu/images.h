// Pairs of images: streams of planes, then the head of the network as vector ops on the read-outs.
#pragma once

#include "head.h"
#include "stream.h"

namespace ntk {
namespace {

// Scratch memory of one thread for a tile.
template <class T>
struct ImageScratch : HeadScratch<T> {
  T *row_pixels, *row_table;
  std::int64_t *row_offset, *col_offset;
  void* stream;
};

template <class T>
ImageScratch<T> make_scratch(const PlaneProgram& program, char*& memory) {
  std::int64_t table = 0;
  for (int k = 0; k < program.size; ++k) table += feature_count(program.ops[k]);
  ImageScratch<T> s{make_head_scratch<T>(program.head, memory), {}, {}, {}, {}, {}};
  s.row_pixels = static_cast<T*>(
      carve(memory, std::int64_t(program.h) * program.w * program.channels * sizeof(T)));
  s.row_table = static_cast<T*>(carve(memory, table * sizeof(T)));
  s.row_offset = static_cast<std::int64_t*>(carve(memory, program.size * sizeof(std::int64_t)));
  s.col_offset = static_cast<std::int64_t*>(carve(memory, program.size * sizeof(std::int64_t)));
  s.stream = memory;
  return s;
}

// One image out of its strip: pixels and features as scalars. A ReLU that runs inside its
// convolution gets the convolution's a/9 (without bias) and its own factor multiplied in here, once
// per row.
template <class T>
void load_row(const ImageTile<T>& tile, std::int64_t row, const ImageScratch<T>& s) {
  const PlaneProgram& program = tile.program;
  const ImagesView<T>& images = tile.row_images;
  const std::int64_t strip = row / kImageLanes<T>, lane = row % kImageLanes<T>;
  const T* pixels = images.pixels + strip * images.pixels_stride + lane;
  for (std::int64_t i = 0; i < std::int64_t(program.h) * program.w * program.channels; ++i)
    s.row_pixels[i] = pixels[i * kImageLanes<T>];
  for (int k = 0; k < program.size; ++k) {
    const PlaneOp& op = program.ops[k];
    const std::int64_t count = feature_count(op);
    T scale0 = 1, scale1 = 1;
    if (op.kind == PlaneOpKind::pointwise && op.fast == FastPath::skipped) {
      const Affine<double> conv = of_window_sums(program.ops[k - 1]);
      scale0 = conv.b > 0 ? T(1) : T(conv.a);
      scale1 = T(0.5 / kPi);
    }
    const T* from =
        images.table + strip * images.table_stride + images.offset[k] * kImageLanes<T> + lane;
    T* to = s.row_table + images.offset[k];
    for (std::int64_t i = 0; i < count; ++i)
      to[i] = (i % 2 ? scale1 : scale0) * from[i * kImageLanes<T>];
    s.row_offset[k] = images.offset[k];
    s.col_offset[k] = images.offset[k] * kImageLanes<T>;
  }
}

template <class T, bool kNtk>
void run_images(const ImageTile<T>& tile) {
  constexpr int L = kLanes<T>, N = kImageLanes<T>;
  char* memory = static_cast<char*>(tile.workspace);
  const ImageScratch<T> s = make_scratch<T>(tile.program, memory);
  StreamIo<T> io{};
  io.readouts = s.readouts;
  io.row_pixels = s.row_pixels;
  Stream<T, kNtk, false> stream(tile.program, io, s.stream);
  for (std::int64_t i = 0; i < tile.rows && !stopped(); ++i) {
    load_row(tile, tile.row + i, s);
    for (std::int64_t j = 0; j < tile.cols && !stopped(); j += L) {
      if (tile.diagonal && j + L - 1 <= i) continue;
      const std::int64_t strip = (tile.col + j) / N, lane = (tile.col + j) % N;
      io.col_pixels = tile.col_images.pixels + strip * tile.col_images.pixels_stride + lane;
      io.tables = {s.row_table, tile.col_images.table + strip * tile.col_images.table_stride + lane,
                   s.row_offset, s.col_offset};
      for (int k = 0; k < 2 * tile.program.head.slots * L; ++k) s.readouts[k] = 0;
      stream.run();
      run_head<T, kNtk>(tile, tile.row + i, tile.col + j, s);
      scatter(tile, i, j, s);
    }
  }
}

inline bool has_features(const PlaneProgram& program, const Segment& segment) {
  for (int k = segment.first; k < segment.last; ++k)
    if (feature_count(program.ops[k]) > 0) return true;
  return false;
}

// Pairs (x, x): the tables segment by segment, each from the few planes that reach its d = 0 plane;
// then, if asked for, all planes for the read-outs.
inline void run_self(const SelfStrip& self) {
  constexpr int L = kLanes<double>, N = kImageLanes<double>;
  char* memory = static_cast<char*>(self.workspace);
  const int head_slots = self.program.head.slots;
  auto* offset =
      static_cast<std::int64_t*>(carve(memory, self.program.size * sizeof(std::int64_t)));
  auto* readouts = static_cast<double*>(carve(memory, 2 * head_slots * N * sizeof(double)));
  for (int k = 0; k < self.program.size; ++k) offset[k] = self.offset[k] * N;
  for (int lane = 0; lane < N; lane += L) {
    // The images against themselves.
    StreamIo<double> io{};
    io.row_pixels = io.col_pixels = self.pixels + lane;
    io.tables = {nullptr, self.table + lane, nullptr, offset};
    io.record = self.table + lane;
    io.readouts = readouts;
    // The tables.
    for (int s = 0; s < self.program.segment_count; ++s) {
      if (!has_features(self.program, self.program.segments[s])) continue;
      Stream<double, false, true> near(self.near[s], io, memory);
      near.run();
    }
    if (!self.complete) continue;
    // The read-outs.
    for (int k = 0; k < 2 * head_slots * N; ++k) readouts[k] = 0;
    io.half = self.program.segment_count == 1 && !self.program.segments[0].circular;
    Stream<double, true, true> all(self.program, io, memory);
    all.run();
    for (int slot = 0; slot < 2 * head_slots; ++slot)
      for (int l = 0; l < L; ++l) self.readouts[slot * N + lane + l] = readouts[slot * L + l];
  }
}

template <class T, bool kSelf>
std::int64_t stream_bytes(const PlaneProgram& program) {
  const StreamIo<T> io{};
  return Stream<T, true, kSelf>(program, io, nullptr).bytes();
}

inline std::int64_t image_scratch_bytes(const PlaneProgram& program) {
  char* memory = nullptr;
  make_scratch<double>(program, memory);
  // A vector of doubles is as wide as one of floats.
  const std::int64_t streams = stream_bytes<double, true>(program);
  return (memory - static_cast<char*>(nullptr)) + streams + 4096;
}

}  // namespace
}  // namespace ntk
