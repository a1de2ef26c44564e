// The GPU's backend on the host, one element, block and warp after another: the very templates
// that nvcc compiles, so that tests run them where there is no GPU. Slow.
#include "emulation.h"

#include <cstring>
#include <memory>

#include "full_run.h"
#include "image_run.h"
#include "vector_run.h"

namespace ntk {
namespace {

class HostDevice {
 public:
  template <class T>
  T* take(std::int64_t n) {
    const std::size_t bytes = std::size_t(n + 1) * sizeof(T);
    memory_.emplace_back(new char[bytes]);
    // NaN, and -1: what is read before it is written shows.
    std::memset(memory_.back().get(), 0xff, bytes);
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
  template <class F>
  void each_of(std::int64_t pairs, int n, const F& f) {
    for (std::int64_t pair = 0; pair < pairs; ++pair)
      for (int i = 0; i < n; ++i) f(pair, i);
  }
  template <class F>
  void squares(std::int64_t n, const F& f) {
    typename F::Shared shared;
    for (std::int64_t i = 0; i < n; ++i)
      f.template run<HostBlock<F::kThreads>>(unsigned(i), shared);
  }
  template <class T, int kSide, bool kBias, bool kShort>
  void warps(std::int64_t n, const TorusChain<T, kSide, kBias, kShort>& f) {
    for (std::int64_t i = 0; i < n; ++i) f.template run<HostWarp<T>>(i);
  }
  std::int64_t budget() const { return 1 << 20; }  // small, so that tests meet several batches

 private:
  std::vector<std::unique_ptr<char[]>> memory_;
};

template <class T>
void run_tile(const Tile<T>& tile) {
  HostDevice device;
  VectorRun<T, HostDevice>(tile, device).run();
}
template <class T>
void run_tile(const ImageTile<T>& tile) {
  HostDevice device;
  ImageRun<T, HostDevice>(tile, device).run();
}
template <class T>
void run_tile(const FullTile<T>& tile) {
  HostDevice device;
  FullRun<T, HostDevice>(tile, device).run();
}

}  // namespace

void Emulation::vectors(const Tile<float>& tile, StreamOf) { run_tile(tile); }
void Emulation::vectors(const Tile<double>& tile, StreamOf) { run_tile(tile); }
void Emulation::images(const ImageTile<float>& tile, StreamOf) { run_tile(tile); }
void Emulation::images(const ImageTile<double>& tile, StreamOf) { run_tile(tile); }
void Emulation::full(const FullTile<float>& tile, StreamOf) { run_tile(tile); }
void Emulation::full(const FullTile<double>& tile, StreamOf) { run_tile(tile); }

}  // namespace ntk
