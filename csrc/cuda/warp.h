// A warp as one object: the same template runs on the device, where a value is a thread's own and neighbours come by
// shuffle, and on the host, where a value is a Pack of 32 and neighbours come by index (tests without a GPU).
#pragma once

#include <cstdint>

#include "../pack.h"

namespace ntk {

constexpr int kWarp = 32;

template <class T>
struct HostWarp {
  using V = Pack<T, kWarp>;
  using I = Pack<std::int64_t, kWarp>;

  // f(lane) of every lane.
  template <class F>
  static I integers(const F& f) {
    I r;
    for (int l = 0; l < kWarp; ++l) r.v[l] = f(l);
    return r;
  }
  template <class F>
  static V values(const F& f) {
    V r;
    for (int l = 0; l < kWarp; ++l) r.v[l] = f(l);
    return r;
  }
  static V load(const T* p, const I& at, std::int64_t offset) {
    V r;
    for (int l = 0; l < kWarp; ++l) r.v[l] = p[at.v[l] + offset];
    return r;
  }
  // Two neighbours in memory.
  static void load2(const T* p, const I& at, std::int64_t offset, V& a, V& b) {
    for (int l = 0; l < kWarp; ++l) a.v[l] = p[at.v[l] + offset], b.v[l] = p[at.v[l] + offset + 1];
  }
  // Lanes whose `at` is negative store nothing.
  template <class To>
  static void store(To* p, const I& at, std::int64_t offset, const V& value) {
    for (int l = 0; l < kWarp; ++l)
      if (at.v[l] >= 0) p[at.v[l] + offset] = value.v[l];
  }
  static V left(const V& x) {
    V r = x;
    for (int l = 1; l < kWarp; ++l) r.v[l] = x.v[l - 1];
    return r;
  }
  // The value `by` lanes to the right; of the last lanes their own.
  static V right(const V& x, int by = 1) {
    V r = x;
    for (int l = 0; l + by < kWarp; ++l) r.v[l] = x.v[l + by];
    return r;
  }
};

#if defined(__CUDACC__)
__device__ __forceinline__ float2 load_two(const float* p) { return __ldg(reinterpret_cast<const float2*>(p)); }
__device__ __forceinline__ double2 load_two(const double* p) { return __ldg(reinterpret_cast<const double2*>(p)); }

template <class T>
struct DeviceWarp {
  using V = T;
  using I = std::int64_t;

  template <class F>
  static __device__ __forceinline__ I integers(const F& f) {
    return f(int(threadIdx.x % kWarp));
  }
  template <class F>
  static __device__ __forceinline__ V values(const F& f) {
    return f(int(threadIdx.x % kWarp));
  }
  static __device__ __forceinline__ V load(const T* p, I at, std::int64_t offset) { return p[at + offset]; }
  static __device__ __forceinline__ void load2(const T* p, I at, std::int64_t offset, V& a, V& b) {
    const auto two = load_two(p + at + offset);
    a = two.x, b = two.y;
  }
  template <class To>
  static __device__ __forceinline__ void store(To* p, I at, std::int64_t offset, V value) {
    if (at >= 0) p[at + offset] = value;
  }
  static __device__ __forceinline__ V left(V x) { return __shfl_up_sync(0xffffffffu, x, 1); }
  static __device__ __forceinline__ V right(V x, int by = 1) { return __shfl_down_sync(0xffffffffu, x, by); }
};
#endif

}  // namespace ntk
