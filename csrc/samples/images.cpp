#include "images.h"

#include <limits>

#include "../scratch.h"
#include "../stop.h"
#include "points.h"

namespace ntk {
namespace {

constexpr std::int64_t kSelf = kImageLanes<double>;

// The strips of images of one block, one after another through the backend's self_strip.
class SelfRunner {
 public:
  SelfRunner(const PlaneSchedule& schedule, const Backend& backend, bool complete)
      : backend_(backend),
        memory_(backend.image_bytes(schedule.view())),
        pixels(schedule.view().h * schedule.view().w * schedule.view().channels * kSelf),
        table(schedule.table_size() * kSelf),
        readouts(2 * schedule.view().head.slots * kSelf) {
    const PlaneProgram program = schedule.view();
    for (int s = 0; s < program.segment_count; ++s) near_.push_back(schedule.near(s));
    strip_ = {near_.data(), program,         schedule.offset(), pixels.data(),
              table.data(), readouts.data(), complete,          memory_.get()};
  }

  // Images [first, first + kSelf) of x, zeros beyond the last.
  template <class T>
  void run(const T* x, std::int64_t first, std::int64_t size) {
    const std::int64_t width = std::int64_t(pixels.size()) / kSelf;
    for (std::int64_t lane = 0; lane < kSelf; ++lane)
      for (std::int64_t i = 0; i < width; ++i)
        pixels[i * kSelf + lane] = first + lane < size ? double(x[(first + lane) * width + i]) : 0;
    backend_.self_strip(strip_);
    if (stopped()) throw Stopped();
  }

  void clear() {
    pixels.assign(pixels.size(), 0);
    table.assign(table.size(), 0);
  }

 private:
  const Backend& backend_;
  std::vector<PlaneProgram> near_;
  AlignedMemory memory_;
  SelfStrip strip_;

 public:
  std::vector<double> pixels, table, readouts;
};

// Numbers of kSelf lanes side by side into strips of N lanes.
template <class T>
void copy_lanes(const double* from, std::int64_t numbers, T* to, std::int64_t N) {
  for (std::int64_t i = 0; i < numbers; ++i)
    for (std::int64_t lane = 0; lane < kSelf; ++lane) to[i * N + lane] = T(from[i * kSelf + lane]);
}

// The tables of kSelf lanes into strips of N lanes.
template <class T>
void copy_tables(const PlaneSchedule& schedule, const double* from, T* to, std::int64_t N) {
  copy_lanes(from, schedule.table_size(), to, N);
  const PlaneProgram program = schedule.view();
  for (int k = 0; k < program.size; ++k) {
    const PlaneOp& op = program.ops[k];
    if (!holds_inverse(op)) continue;
    for (std::int64_t p = 0; p < std::int64_t(op.h) * op.w; ++p) {
      const std::int64_t i = schedule.offset()[k] + p * pixel_features(op);
      for (std::int64_t lane = 0; lane < kSelf; ++lane)
        to[i * N + lane] = bounded_inverse<T>(from[i * kSelf + lane], kLargestInverse<T>);
    }
  }
}

}  // namespace

template <class T>
std::vector<T> head_table(const Program& head, const double* features, std::int64_t size,
                          std::int64_t pitch, std::int64_t stride) {
  std::vector<T> table(2 * head.size * stride, T(0));
  for (int f = 0; features && f < 2 * head.size; ++f)
    for (std::int64_t n = 0; n < size; ++n) {
      const double value = features[f * pitch + n];
      const bool inverse = f % 2 == 0 && holds_inverse(head.ops[f / 2]);
      table[f * stride + n] =
          inverse ? bounded_inverse<T>(value, std::numeric_limits<T>::max()) : T(value);
    }
  return table;
}

void follow_head(const Program& head, const double* readouts, int step, std::int64_t n,
                 std::int64_t size, ImageDiagonal& out) {
  std::vector<PointState> slots(head.slots);
  for (int s = 0; s < head.slots; ++s)
    slots[s] = {readouts[2 * s * step], readouts[(2 * s + 1) * step]};
  follow_kernels(
      head, slots.data(),
      [&](int op, int which, double value) { out.head[(2 * op + which) * size + n] = value; },
      [&](int output, double nngp, double ntk) {
        out.nngp[output * size + n] = nngp;
        out.ntk[output * size + n] = ntk;
      });
}

template <class T>
void image_strips(const PlaneSchedule& schedule, const Backend& backend, const T* x,
                  std::int64_t size, T* pixels, T* table) {
  constexpr std::int64_t N = kImageLanes<T>;
  const PlaneProgram program = schedule.view();
  const std::int64_t width = std::int64_t(program.h) * program.w * program.channels,
                     numbers = schedule.table_size();
  SelfRunner runner(schedule, backend, false);
  for (std::int64_t first = 0; first < (size + N - 1) / N * N; first += kSelf) {
    const std::int64_t strip = first / N, lane = first % N;
    first < size ? runner.run(x, first, size) : runner.clear();
    copy_lanes(runner.pixels.data(), width, pixels + strip * width * N + lane, N);
    copy_tables(schedule, runner.table.data(), table + strip * numbers * N + lane, N);
  }
}

template <class T>
Images<T>::Images(const PlaneSchedule& schedule, const Backend& backend, const T* x,
                  std::int64_t size, const double* head, std::int64_t head_pitch)
    : size_(size), offset_(schedule.offset(), schedule.offset() + schedule.view().size) {
  constexpr std::int64_t N = kImageLanes<T>;
  const PlaneProgram program = schedule.view();
  const std::int64_t width = std::int64_t(program.h) * program.w * program.channels,
                     strips = (size + N - 1) / N;
  pixels_stride_ = width * N;
  table_stride_ = schedule.table_size() * N;
  head_stride_ = strips * N;
  pixels_.resize(strips * pixels_stride_);
  table_.resize(strips * table_stride_);
  image_strips(schedule, backend, x, size, pixels_.data(), table_.data());
  head_ = head_table<T>(program.head, head, size, head_pitch, head_stride_);
}

template <class T>
ImagesView<T> Images<T>::view() const {
  return {size_,         pixels_.data(), pixels_stride_, table_.data(),
          table_stride_, offset_.data(), head_.data(),   head_stride_};
}

template <class T>
ImageDiagonal image_diagonal(const PlaneSchedule& schedule, const Backend& backend, const T* x,
                             std::int64_t size) {
  const PlaneProgram program = schedule.view();
  const Program& head = program.head;
  ImageDiagonal out{std::vector<double>(head.outputs * size),
                    std::vector<double>(head.outputs * size),
                    std::vector<double>(2 * head.size * size)};
  SelfRunner runner(schedule, backend, true);
  for (std::int64_t first = 0; first < size; first += kSelf) {
    runner.run(x, first, size);
    for (std::int64_t lane = 0; lane < kSelf && first + lane < size; ++lane)
      follow_head(head, runner.readouts.data() + lane, kSelf, first + lane, size, out);
  }
  return out;
}

template std::vector<float> head_table(const Program&, const double*, std::int64_t, std::int64_t,
                                       std::int64_t);
template std::vector<double> head_table(const Program&, const double*, std::int64_t, std::int64_t,
                                        std::int64_t);
template void image_strips(const PlaneSchedule&, const Backend&, const float*, std::int64_t, float*,
                           float*);
template void image_strips(const PlaneSchedule&, const Backend&, const double*, std::int64_t,
                           double*, double*);
template class Images<float>;
template class Images<double>;
template ImageDiagonal image_diagonal(const PlaneSchedule&, const Backend&, const float*,
                                      std::int64_t);
template ImageDiagonal image_diagonal(const PlaneSchedule&, const Backend&, const double*,
                                      std::int64_t);

}  // namespace ntk
