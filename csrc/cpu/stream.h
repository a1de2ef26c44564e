// All planes of one row image against a strip of column images: segment by segment, planes in order
// of displacement, through every layer up to the next pool while they are in cache.
#pragma once

#include "../stop.h"
#include "conv3.h"
#include "pool.h"

namespace ntk {
namespace {

constexpr int kMaxPools = 16;

// What a stream reads and writes besides its scratch memory.
template <class T>
struct StreamIo {
  const T* row_pixels;  // [h w][channels], or [h w][channels][kImageLanes] in self mode
  const T* col_pixels;  // [h w][channels][kImageLanes]
  Tables<T> tables;
  double* record;    // self mode: where tables of features are written, laid out as the column's
  double* readouts;  // [read-outs][2][kLanes]
  bool half;         // self mode: planes d and -d have equal sums, so one of them counts twice
};

template <class T, bool kNtk, bool kSelf>
class Stream {
 public:
  using V = typename Vector<T>::type;
  static constexpr int L = kLanes<T>;
  static constexpr std::int64_t kVectorBytes = L * sizeof(T);

  // Without memory only its size is found out.
  Stream(const PlaneProgram& program, const StreamIo<T>& io, void* memory)
      : program_(program), io_(io), memory_(static_cast<char*>(memory)) {
    for (int s = 0; s < program.segment_count; ++s) circular_ |= program.segments[s].circular;
    mates_ = circular_ ? 4 : 1;
    take_planes();
    take_lines();
    for (int s = 0; s + 1 < program.segment_count; ++s) take_pool(s);
  }
  std::int64_t bytes() const { return bytes_; }

  void run() {
    for (int s = 0; s + 1 < program_.segment_count; ++s) {
      pools_[s].next = 1 - pools_[s].op->out_h;
      for (int b = 0; b < pools_[s].bands; ++b) pools_[s].clear_band(b + 1 - pools_[s].op->out_h);
    }
    const Segment& first = program_.segments[0];
    for (int dh = first.circular || io_.half ? 0 : 1 - first.h; dh < end_h(first); ++dh)
      advance(0, dh);
    for (int s = 0; s + 1 < program_.segment_count; ++s) {
      const Segment& after = program_.segments[s + 1];
      if (after.circular)
        for (int dh = 0; dh < end_h(after); ++dh) advance(s + 1, dh);
      else
        while (pools_[s].next < after.h) hand_on(s);
    }
  }

 private:
  // Planes a power of two apart would fight for the same cache sets.
  T* take(std::int64_t bytes) {
    char* const taken = memory_ ? memory_ + bytes_ : nullptr;
    bytes_ += (bytes + 63) / 64 * 64 + 5 * 64;
    return reinterpret_cast<T*>(taken);
  }

  void take_planes() {
    std::int64_t pixels = std::int64_t(program_.h) * program_.w;  // of the largest image
    for (int k = 0; k < program_.size; ++k) {
      const PlaneOp& op = program_.ops[k];
      pixels = larger(pixels, larger(std::int64_t(op.h) * op.w, std::int64_t(op.out_h) * op.out_w));
    }
    const int planes = (program_.slots + 1) * mates_;
    planes_ = reinterpret_cast<Plane<T>*>(take(planes * std::int64_t(sizeof(Plane<T>))));
    for (int i = 0; i < planes; ++i) {
      T* const k = take(pixels * kVectorBytes);
      T* const t = take(pixels * kVectorBytes);
      if (memory_) planes_[i] = {k, t, 0, 0, 0, 0, false};
    }
  }

  void take_lines() {
    std::int64_t width = program_.w;  // of the widest image
    for (int k = 0; k < program_.size; ++k) width = larger(width, program_.ops[k].w);
    T* const zero = take(width * kVectorBytes);
    T* const k = take(width * kVectorBytes);
    T* const t = take(width * kVectorBytes);
    lines_ = {k, t, zero};
    for (std::int64_t i = 0; memory_ && i < width * L; ++i) zero[i] = 0;
  }

  void take_pool(int s) {
    Pool<T>& pool = pools_[s];
    pool.op = &program_.ops[program_.segments[s].last];
    const int all = 2 * pool.op->out_h - 1,
              alive = (2 * pool.op->window_h - 2) / pool.op->stride_h + 2;
    pool.bands = circular_ || alive > all ? all : alive;
    pool.memory = take(2 * pool.band_size() * pool.bands * std::int64_t(sizeof(T)));
  }

  static std::int64_t larger(std::int64_t a, std::int64_t b) { return a > b ? a : b; }

  Plane<T>* slot(int number) { return planes_ + number * mates_; }
  Plane<T>* spare() { return planes_ + program_.slots * mates_; }

  // Past the last displacement; with circular padding every d >= 0 stands for its mate d - period
  // too.
  static int end_h(const Segment& segment) {
    return segment.circular ? segment.period_h : segment.h;
  }
  static int end_w(const Segment& segment) {
    return segment.circular ? segment.period_w : segment.w;
  }

  // All planes of segment s with displacement dh (and its mate, if circular) are at hand: run them.
  void advance(int s, int dh) {
    const Segment& segment = program_.segments[s];
    if (segment.needs_h(dh)) {
      const bool half_row = io_.half && dh == 0;
      for (int dw = segment.circular || half_row ? 0 : 1 - segment.w; dw < end_w(segment); ++dw)
        if (segment.needs_w(dw) && !stopped()) run_planes(s, dh, dw);
    }
    if (s + 1 >= program_.segment_count || circular_) return;
    const PlaneOp& pool = *pools_[s].op;
    const int stride = stride_before_pool(s);
    const int scaled = (dh + stride * segment.h) / stride - segment.h;  // rounded down
    while (pools_[s].next < pool.out_h &&
           pool.stride_h * pools_[s].next + pool.window_h - 1 <= scaled)
      hand_on(s);
  }

  void hand_on(int s) {
    const int dh = pools_[s].next++;
    advance(s + 1, dh);
    pools_[s].clear_band(dh);
  }

  // Height of a segment's start over the height of its pool's input, as a stride.
  int stride_before_pool(int s) const {
    int stride = 1;
    for (int k = program_.segments[s].first; k < program_.segments[s].last; ++k)
      if (program_.ops[k].kind == PlaneOpKind::conv && program_.ops[k].slot == 0)
        stride = capped_product(stride, program_.ops[k].stride_h);
    return stride;
  }

  void run_planes(int s, int dh, int dw) {
    const Segment& segment = program_.segments[s];
    count_ = 0;
    for (int mh = 0; mh < (segment.circular && dh > 0 ? 2 : 1); ++mh)
      for (int mw = 0; mw < (segment.circular && dw > 0 ? 2 : 1); ++mw) {
        const int at_h = dh - mh * segment.period_h, at_w = dw - mw * segment.period_w;
        if (at_h >= segment.h || -at_h >= segment.h || at_w >= segment.w || -at_w >= segment.w)
          continue;
        Plane<T>& plane = slot(0)[count_++];
        plane = {plane.k, plane.t, segment.h, segment.w, at_h, at_w, true};
        if (s == 0)
          load_input(plane);
        else
          load_pooled(s - 1, plane);
      }
    for (int k = segment.first; k < segment.last; ++k) run_op(k);
    if (s + 1 >= program_.segment_count) return;
    const Segment& after = program_.segments[s + 1];
    for (int m = 0; m < count_; ++m)
      if (slot(0)[m].alive) pool_plane<T, kNtk>(pools_[s], slot(0)[m], after.need_h, after.need_w);
  }

  // K = <x(p), x'(p + d)> / channels, T = 0.
  void load_input(Plane<T>& plane) {
    if (program_.channels == 1)
      load_channels<1>(plane);
    else if (program_.channels == 3)
      load_channels<3>(plane);
    else
      load_channels<0>(plane);
  }

  // The number of channels where it is known to the compiler, else 0.
  template <int kChannels>
  void load_channels(Plane<T>& plane) {
    const int channels = kChannels ? kChannels : program_.channels;
    const std::int64_t shift = std::int64_t(plane.dh) * plane.w + plane.dw;
    const T scale = T(1) / T(channels);
    for_pixels(plane, [&](std::int64_t i, std::int64_t p) __attribute__((always_inline)) {
      const T* x = io_.row_pixels + p * channels * (kSelf ? kImageLanes<T> : 1);
      const T* y = io_.col_pixels + (p + shift) * channels * kImageLanes<T>;
      V sum = V{};
      for (int c = 0; c < channels; ++c)
        sum += (kSelf ? load(x + c * kImageLanes<T>) : splat(x[c])) * load(y + c * kImageLanes<T>);
      store(plane.k + i * L, scale * sum);
    });
    if (kNtk)
      for (std::int64_t i = 0; i < plane.size(); i += L) store(plane.t + i, V{});
  }

  void load_pooled(int s, Plane<T>& plane) {
    Plane<T> pooled = pools_[s].plane(plane.dh, plane.dw);
    scale_pooled<T, kNtk>(*pools_[s].op, pooled);
    plane_combine(PlaneOpKind::copy, plane, pooled);
  }

  void run_op(int k) {
    const PlaneOp& op = program_.ops[k];
    Plane<T>* planes = slot(op.slot);
    if (op.kind == PlaneOpKind::conv)
      op.fast == FastPath::none ? convolve(op) : conv_in_place(op, k);
    if (op.kind == PlaneOpKind::copy) copy_header(op);
    for (int m = 0; m < count_; ++m) {
      Plane<T>& plane = planes[m];
      if (!plane.alive) continue;
      if (op.kind == PlaneOpKind::pointwise && (kSelf || op.fast != FastPath::skipped))
        run_pointwise(op, k, plane);
      if (of_two_slots(op.kind)) plane_combine(op.kind, plane, slot(op.other)[m]);
      if (op.kind == PlaneOpKind::readout && wanted(op, plane)) {
        const bool twice = io_.half && (plane.dh != 0 || plane.dw != 0);
        plane_readout<T, kNtk>(op, plane, (twice ? 2 : 1) * op.constants.scale(),
                               io_.readouts + 2 * L * op.other);
      }
    }
  }

  static bool wanted(const PlaneOp& op, const Plane<T>& plane) {
    const auto within = [](int d, int c) { return c < 0 || (d <= 2 * c && -d <= 2 * c); };
    return within(plane.dh, op.window_h) && within(plane.dw, op.window_w);
  }

  void copy_header(const PlaneOp& op) {
    for (int m = 0; m < count_; ++m) {
      Plane<T>&to = slot(op.slot)[m], &from = slot(op.other)[m];
      to.h = from.h;
      to.w = from.w;
      to.dh = from.dh;
      to.dw = from.dw;
      to.alive = from.alive;
    }
  }

  // The 3x3 fast paths.
  void conv_in_place(const PlaneOp& op, int k) {
    for (int m = 0; m < count_; ++m) {
      const Plane<T>& plane = slot(op.slot)[m];
      if (!plane.alive) continue;
      const bool bias = op.constants.affine().b > 0;
      const bool first = k == 0 && !bias;  // T is zero before the first layer
      if (kSelf || op.fast == FastPath::conv3)
        conv3<T, kNtk, false>(plane, lines_, AffinePost<T, kNtk>{of_window_sums(op).as<T>()});
      else if (op.fast == FastPath::conv3_relu_positive)
        bias ? conv3_relu<true, true, false>(op, k, plane)
             : conv3_relu<true, false, false>(op, k, plane);
      else if (first)
        conv3_relu<false, false, true>(op, k, plane);
      else
        bias ? conv3_relu<false, true, false>(op, k, plane)
             : conv3_relu<false, false, false>(op, k, plane);
    }
  }

  template <bool kPositive, bool kBias, bool kZeroT>
  void conv3_relu(const PlaneOp& op, int k, const Plane<T>& plane) {
    conv3<T, kNtk, kZeroT>(plane, lines_,
                           ReluPost<T, kNtk, kPositive, kBias>(op, io_.tables, k + 1, plane));
  }

  void convolve(const PlaneOp& op) {
    for (int m = 0; m < count_; ++m) {
      const Plane<T>& in = slot(op.slot)[m];
      Plane<T>& out = spare()[m];
      out.h = op.out_h;
      out.w = op.out_w;
      out.dh = in.dh / op.stride_h;
      out.dw = in.dw / op.stride_w;
      out.alive = in.alive && in.dh % op.stride_h == 0 && in.dw % op.stride_w == 0 &&
                  out.dh < out.h && -out.dh < out.h && out.dw < out.w && -out.dw < out.w;
    }
    for (int m = 0; m < count_; ++m) {
      Plane<T>& out = spare()[m];
      if (!out.alive) continue;
      if (op.circular)
        plane_conv_circular<T, kNtk>(op, slot(op.slot), count_, out);
      else
        plane_conv<T, kNtk>(op, slot(op.slot)[m], out);
    }
    for (int m = 0; m < count_; ++m) {
      const Plane<T> old = slot(op.slot)[m];
      slot(op.slot)[m] = spare()[m];
      spare()[m] = old;
    }
  }

  void run_pointwise(const PlaneOp& op, int k, Plane<T>& plane) {
    if constexpr (kSelf)
      if (plane.dh == 0 && plane.dw == 0) return record(op, k, plane);
    if (acts(op.pointwise)) plane_pointwise<T, kNtk, kSelf>(op, k, io_.tables, plane);
  }

  // Pairs (x, x) at d = 0: the correlation is exactly 1, and K is the variance whose features are
  // written down.
  void record(const PlaneOp& op, int k, Plane<T>& plane) {
    static_assert(sizeof(T) == sizeof(double));
    double* table = io_.record + io_.tables.col_offset[k];
    constexpr int N = kImageLanes<T>;
    const std::int64_t pixels = std::int64_t(plane.h) * plane.w, step = pixel_features(op) * N;
    if (op.pointwise == Pointwise::normalize) {
      const Normalize<T> norm(op.constants.p);
      if (norm.over_h || norm.over_w) return record_means(norm, table, plane);
    }
    visit_pointwise<T>(
        op.pointwise, op.constants, [&](const auto& phi) __attribute__((always_inline)) {
          for (std::int64_t p = 0; p < pixels; ++p) {
            T *const k = plane.k + p * L, *const t = plane.t + p * L;
            double first[L],
                second[L];  // side by side, so that the compiler takes all lanes at once
            T e[L], d[L];
            for (int l = 0; l < L; ++l) {
              const WithItself<T> r = with_itself(phi, k[l]);
              first[l] = r.f[0];
              second[l] = r.f[1];
              e[l] = r.E;
              d[l] = r.D;
            }
            store(table + p * step, load(first));
            store(table + p * step + N, load(second));
            store(k, load(e));
            if (kNtk) store(t, load(d) * load(t));
          }
        });
  }

  // The same of a normalisation over rows, columns or both: of all pixels of a group it takes the
  // mean of their variances.
  static void record_means(const Normalize<T>& norm, double* table, Plane<T>& plane) {
    constexpr int N = kImageLanes<T>;
    const int h = plane.h, w = plane.w, rows = norm.over_h ? h : 1, cols = norm.over_w ? w : 1;
    const T share = T(1) / (T(rows) * T(cols));
    const auto of_group = [&](int top, int left, const auto& each) {
      for (int r = top; r < top + rows; ++r)
        for (int c = left; c < left + cols; ++c) each(std::int64_t(r) * w + c);
    };
    for (int top = 0; top < h; top += rows)
      for (int left = 0; left < w; left += cols) {
        V mean = V{};
        of_group(top, left, [&](std::int64_t p) { mean += share * load(plane.k + p * L); });
        double scale[L];
        for (int l = 0; l < L; ++l) {
          double f[2];
          norm.side(double(mean[l]), f);
          scale[l] = f[0];
        }
        const V f = load(scale);
        of_group(top, left, [&](std::int64_t p) {
          store(table + 2 * p * N, f);
          store(table + (2 * p + 1) * N, V{});
          store(plane.k + p * L, f * f * load(plane.k + p * L));
          if (kNtk) store(plane.t + p * L, f * f * load(plane.t + p * L));
        });
      }
  }

  const PlaneProgram& program_;
  const StreamIo<T>& io_;
  char* const memory_;
  Plane<T>* planes_;  // [slots + 1 spare][mates]
  Lines<T> lines_;
  Pool<T> pools_[kMaxPools];
  int mates_ = 1, count_ = 1;
  bool circular_ = false;
  std::int64_t bytes_ = 0;
};

}  // namespace
}  // namespace ntk
