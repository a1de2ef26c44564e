// The GPU's executor on the host, one element and one warp after another: the very templates that nvcc compiles, so that
// tests run them where there is no GPU. Slow.
#include <memory>

#include "image_run.h"
#include "vector_run.h"

namespace ntk {
namespace {

class HostDevice {
 public:
  template <class T>
  T* take(std::int64_t n) {
    memory_.emplace_back(new char[(n + 1) * sizeof(T)]);
    return reinterpret_cast<T*>(memory_.back().get());
  }
  template <class T>
  const T* upload(const T* from, std::int64_t n) {
    T* const to = take<T>(n);
    std::copy(from, from + n, to);
    return to;
  }
  template <class F>
  void each(std::int64_t n, const F& f) {
    for (std::int64_t i = 0; i < n; ++i) f(i);
  }
  template <class T, int kRows, bool kExact, bool kBias>
  void warps(std::int64_t n, const TorusChain<T, kRows, kExact, kBias>& f) {
    for (std::int64_t i = 0; i < n; ++i) f.template run<HostWarp<T>>(i);
  }
  std::int64_t budget() const { return 1 << 20; }  // small, so that tests meet several batches

 private:
  std::vector<std::unique_ptr<char[]>> memory_;
};

}  // namespace

namespace emulation {
void evaluate_float(const Tile<float>& tile) {
  HostDevice device;
  run_vectors(tile, device);
}
void evaluate_double(const Tile<double>& tile) {
  HostDevice device;
  run_vectors(tile, device);
}
void images_float(const ImageTile<float>& tile) {
  HostDevice device;
  ImageRun<float, HostDevice>(tile, device).run();
}
void images_double(const ImageTile<double>& tile) {
  HostDevice device;
  ImageRun<double, HostDevice>(tile, device).run();
}
}  // namespace emulation

}  // namespace ntk
