#include "full.h"

#include <stdexcept>

#include "../scratch.h"
#include "../stop.h"
#include "points.h"

namespace ntk {
namespace {

// Samples one after another through the backend's full_self.
class SelfRunner {
 public:
  SelfRunner(const FullSchedule& schedule, const Backend& backend, bool complete)
      : backend_(backend),
        program_(schedule.view()),
        pitch_(pitch_of<double>(program_)),
        width_(schedule.width()),
        values_(width_ * pitch_),
        table(schedule.table_rows() * pitch_),
        readouts(2 * program_.head.slots) {
    self_ = {program_,
             schedule.offset(),
             values_.data(),
             table.data(),
             readouts.data(),
             complete,
             kept_memory(backend.full_bytes(program_))};
  }

  // One sample [positions][width].
  template <class T>
  void run(const T* x) {
    for (std::int64_t p = 0; p < program_.positions; ++p)
      for (std::int64_t c = 0; c < width_; ++c) values_[c * pitch_ + p] = double(x[p * width_ + c]);
    if (program_.beside.mask) {
      const double* const mask = values_.data() + program_.channels * pitch_;
      int length = program_.positions;
      while (length > 0 && mask[length - 1] == 0) --length;
      table[0] = length;
      check_ends(mask);
    }
    readouts.assign(readouts.size(), 0);
    backend_.full_self(self_);
    if (stopped()) throw Stopped();
  }
  // Positions in use after an op.
  int in_use(const FullOp& op) const {
    return op.mask < 0 ? op.positions
                       : program_.masks[op.mask].reach[length_in(program_, table.data())];
  }

 private:
  // States go on to the last position: nothing may be masked behind one in use.
  void check_ends(const double* mask) const {
    for (int k = 0; k < program_.size; ++k) {
      const FullOp& op = program_.ops[k];
      if (!recurs(op) || op.mask < 0) continue;
      const int* const origin = program_.masks[op.mask].origin;
      for (int p = 1; p < op.positions; ++p)
        if (mask[origin[p]] == 0 && mask[origin[p - 1]] != 0)
          throw std::invalid_argument(
              "Recurrent: a sample has a masked position behind one in use, where its state would "
              "be"
              " lost: give all sequences the same end, pack_sequences(…, align='right')");
    }
  }

  const Backend& backend_;
  FullProgram program_;
  std::int64_t pitch_, width_;
  FullSelf self_;
  std::vector<double> values_;

 public:
  std::vector<double> table, readouts;
};

// Row number r of an op's features.
template <class T>
void copy_features(const FullOp& op, int r, int in_use, const double* from, T* to) {
  const bool mix = op.kind == FullOpKind::mix, flag = mix && r == 2 * op.positions;
  const bool inverse =
      r == 0 && (recurs(op) ? holds_inverse(op.pointwise, op.constants) : holds_inverse(op));
  const int count = flag ? 1 : mix && r % op.positions >= in_use ? 0 : in_use;
  for (int p = 0; p < op.positions; ++p)
    to[p] = p >= count ? T(0)
            : inverse  ? bounded_inverse<T>(from[p], kLargestInverse<T>)
                       : T(from[p]);
}

}  // namespace

template <class T>
void full_strips(const FullSchedule& schedule, const Backend& backend, const T* x,
                 std::int64_t size, T* values, T* table) {
  const FullProgram program = schedule.view();
  const std::int64_t from = pitch_of<double>(program), to = pitch_of<T>(program);
  const std::int64_t width = schedule.width();
  SelfRunner runner(schedule, backend, false);
  for (std::int64_t n = 0; n < size; ++n) {
    const T* const sample = x + n * program.positions * width;
    runner.run(sample);
    // Its values, channel by channel.
    for (std::int64_t p = 0; p < program.positions; ++p)
      for (std::int64_t c = 0; c < program.channels; ++c)
        values[c * to + p] = sample[p * width + c];
    values += program.channels * to;
    // Its features.
    if (program.beside.mask) table[0] = T(runner.table[0]);
    for (int k = 0; k < program.size; ++k)
      for (int r = 0; r < features_at(program.ops[k]); ++r) {
        const std::int64_t row = schedule.offset()[k] + r;
        const FullOp& op = program.ops[k];
        copy_features(op, r, runner.in_use(op), runner.table.data() + row * from, table + row * to);
      }
    table += schedule.table_rows() * to;
  }
}

template <class T>
FullSamples<T>::FullSamples(const FullSchedule& schedule, const Backend& backend, const T* x,
                            std::int64_t size, const double* head, std::int64_t head_pitch)
    : size_(size), offset_(schedule.offset(), schedule.offset() + schedule.view().size) {
  const FullProgram program = schedule.view();
  const std::int64_t pitch = pitch_of<T>(program);
  pixels_stride_ = program.channels * pitch;
  table_stride_ = schedule.table_rows() * pitch;
  head_stride_ = (size + kImageLanes<T> - 1) / kImageLanes<T> * kImageLanes<T> + kImageLanes<T>;
  pixels_.resize(size * pixels_stride_);
  table_.resize(size * table_stride_);
  full_strips(schedule, backend, x, size, pixels_.data(), table_.data());
  head_ = head_table<T>(program.head, head, size, head_pitch, head_stride_);
}

template <class T>
ImagesView<T> FullSamples<T>::view() const {
  return {size_,         pixels_.data(), pixels_stride_, table_.data(),
          table_stride_, offset_.data(), head_.data(),   head_stride_};
}

template <class T>
ImageDiagonal full_diagonal(const FullSchedule& schedule, const Backend& backend, const T* x,
                            std::int64_t size) {
  const FullProgram program = schedule.view();
  const Program& head = program.head;
  ImageDiagonal out{std::vector<double>(head.outputs * size),
                    std::vector<double>(head.outputs * size),
                    std::vector<double>(2 * head.size * size)};
  SelfRunner runner(schedule, backend, true);
  for (std::int64_t n = 0; n < size; ++n) {
    runner.run(x + n * program.positions * schedule.width());
    follow_head(head, runner.readouts.data(), 1, n, size, out);
  }
  return out;
}

template void full_strips(const FullSchedule&, const Backend&, const float*, std::int64_t, float*,
                          float*);
template void full_strips(const FullSchedule&, const Backend&, const double*, std::int64_t, double*,
                          double*);
template class FullSamples<float>;
template class FullSamples<double>;
template ImageDiagonal full_diagonal(const FullSchedule&, const Backend&, const float*,
                                     std::int64_t);
template ImageDiagonal full_diagonal(const FullSchedule&, const Backend&, const double*,
                                     std::int64_t);

}  // namespace ntk
