// The GPU: kernels that run a functor for every element or every warp, memory of the stream's
// order.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <new>
#include <stdexcept>
#include <string>
#include <typeinfo>
#include <vector>

#include "../backend.h"
#include "block.h"
#include "torus_chain.h"

namespace ntk {

constexpr int kThreads = 256;
constexpr int kChainThreads = 128;
constexpr std::int64_t kMostBatch = std::int64_t(1) << 33;  // bytes: larger batches are no faster

template <class F>
__global__ void __launch_bounds__(kThreads) each_element(std::int64_t n, const F f) {
  const std::int64_t i = std::int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i < n) f(i);
}

// f.run(block number) by a block of threads that share memory.
template <class F>
__global__ void __launch_bounds__(F::kThreads, F::kBlocks) each_block(const F f) {
  __shared__ typename F::Shared shared;
  f.template run<DeviceBlock<F::kThreads>>(blockIdx.x, shared);
}

// f(pair, i) for i < n of every pair, whole blocks a pair.
template <class F>
__global__ void __launch_bounds__(kThreads)
    each_element_of(int n, unsigned blocks_per_pair, const F f) {
  const unsigned pair = blockIdx.x / blocks_per_pair;
  const int i = int((blockIdx.x - pair * blocks_per_pair) * kThreads + threadIdx.x);
  if (i < n) f(std::int64_t(pair), i);
}

// Blocks a multiprocessor must hold, so registers a thread may use: the strip's K and U, and some
// 90 more.
template <class T, int kSide, bool kBias, bool kShort>
constexpr int chain_blocks = sizeof(T) * TorusChain<T, kSide, kBias>::kRows <= 32 ? 6
                             : kShort                                             ? 4
                                                                                  : 3;

template <class T, int kSide, bool kBias, bool kShort>
__global__ void __launch_bounds__(kChainThreads, chain_blocks<T, kSide, kBias, kShort>)
    each_warp(std::int64_t n, const __grid_constant__ TorusChain<T, kSide, kBias, kShort> f) {
  const std::int64_t warp = (std::int64_t(blockIdx.x) * kChainThreads + threadIdx.x) / kWarp;
  if (warp < n) f.template run<DeviceWarp<T>>(warp);
}

// Throws std::bad_alloc where memory is lacking, else std::runtime_error that says what failed.
inline void check(cudaError_t error, const char* what, std::int64_t n = -1) {
  if (error == cudaSuccess) return;
  cudaGetLastError();
  if (error == cudaErrorMemoryAllocation) throw std::bad_alloc();
  const std::string of = n < 0 ? "" : " of " + std::to_string(n);
  throw std::runtime_error(std::string("CUDA: ") + what + of + ": " + cudaGetErrorString(error));
}

class CudaDevice {
 public:
  explicit CudaDevice(StreamOf at) : stream_(reinterpret_cast<cudaStream_t>(at.stream)) {
    check(cudaSetDevice(at.device), "device");
  }
  CudaDevice(const CudaDevice&) = delete;
  ~CudaDevice() {
    for (void* p : taken_) cudaFreeAsync(p, stream_);  // once the kernels before are done
  }

  template <class T>
  T* take(std::int64_t n) {
    void* p = nullptr;
    check(cudaMallocAsync(&p, (n + 1) * sizeof(T), stream_), "memory");
    taken_.push_back(p);
    return static_cast<T*>(p);
  }
  // The host's memory may go at once: copies from pageable memory are staged before the call
  // returns.
  template <class T>
  const T* upload(const T* from, std::int64_t n) {
    T* const to = take<T>(n);
    check(cudaMemcpyAsync(to, from, n * sizeof(T), cudaMemcpyHostToDevice, stream_), "upload");
    return to;
  }
  template <class F>
  void each(std::int64_t n, const F& f) {
    if (n == 0) return;
    each_element<<<blocks(n, kThreads), kThreads, 0, stream_>>>(n, f);
    check(cudaGetLastError(), typeid(F).name(), n);
  }
  template <class F>
  void each_of(std::int64_t pairs, int n, const F& f) {
    if (pairs == 0 || n == 0) return;
    const unsigned per_pair = blocks(n, kThreads), all = blocks(pairs * per_pair, 1);
    each_element_of<<<all, kThreads, 0, stream_>>>(n, per_pair, f);
    check(cudaGetLastError(), typeid(F).name(), pairs);
  }
  template <class F>
  void squares(std::int64_t n, const F& f) {
    if (n == 0) return;
    each_block<<<blocks(n, 1), F::kThreads, 0, stream_>>>(f);
    check(cudaGetLastError(), typeid(F).name(), n);
  }
  template <class T, int kSide, bool kBias, bool kShort>
  void warps(std::int64_t n, const TorusChain<T, kSide, kBias, kShort>& f) {
    if (n == 0) return;
    each_warp<<<blocks(n, kChainThreads / kWarp), kChainThreads, 0, stream_>>>(n, f);
    check(cudaGetLastError(), typeid(f).name(), n);
  }
  // At most a quarter of what is free: two streams work at a time, and results need room.
  std::int64_t budget() const {
    std::size_t free = 0, total = 0;
    check(cudaMemGetInfo(&free, &total), "memory");
    return std::min<std::int64_t>(free / 4, kMostBatch);
  }

 private:
  static unsigned blocks(std::int64_t n, int per_block) {
    const std::int64_t count = (n + per_block - 1) / per_block;
    if (count > 0x7fffffff) throw std::bad_alloc();
    return unsigned(count);
  }

  cudaStream_t stream_;
  std::vector<void*> taken_;
};

}  // namespace ntk
