// A warp as one object: the same template runs on the device, where a value is a thread's own and
// neighbours come by shuffle, and on the host, where a value is a Pack of 32 and neighbours come by
// index (tests without a GPU).
#pragma once

#include <cstdint>

#include "../math/pack.h"

namespace ntk {

constexpr int kWarp = 32;

template <class T>
struct HostWarp {
  using V = Pack<T, kWarp>;
  using I = Pack<std::int64_t, kWarp>;
  template <class S>
  using Each = Pack<S, kWarp>;  // a struct of every lane

  // f(lane) of every lane.
  template <class F>
  static auto each(const F& f) {
    Each<decltype(f(0))> r;
    for (int l = 0; l < kWarp; ++l) r.v[l] = f(l);
    return r;
  }
  // f(struct of the lane) of every lane.
  template <class S, class F>
  static V values(const Each<S>& lanes, const F& f) {
    return each([&](int l) -> T { return f(lanes.v[l]); });
  }
  template <class S, class F>
  static I integers(const Each<S>& lanes, const F& f) {
    return each([&](int l) -> std::int64_t { return f(lanes.v[l]); });
  }
  static V zero() {
    return each([](int) { return T(0); });
  }
  static V load(const T* p, const I& at, std::int64_t offset) {
    return each([&](int l) { return p[at.v[l] + offset]; });
  }
  // Lanes whose `at` is negative get 0.
  static V load_or_zero(const T* p, const I& at, std::int64_t offset) {
    return each([&](int l) { return at.v[l] < 0 ? T(0) : p[at.v[l] + offset]; });
  }
  // Two neighbours in memory.
  static void load2(const T* p, const I& at, std::int64_t offset, V& a, V& b) {
    for (int l = 0; l < kWarp; ++l) {
      a.v[l] = p[at.v[l] + offset];
      b.v[l] = p[at.v[l] + offset + 1];
    }
  }
  // Lanes whose `at` is negative store nothing.
  template <class To>
  static void store(To* p, const I& at, std::int64_t offset, const V& value) {
    for (int l = 0; l < kWarp; ++l)
      if (at.v[l] >= 0) p[at.v[l] + offset] = value.v[l];
  }
  // The value of the lane to the left; of the first lane its own.
  static V left(const V& x) {
    return each([&](int l) { return x.v[l > 0 ? l - 1 : 0]; });
  }
  // The value `by` lanes to the right; of the last lanes their own.
  static V right(const V& x, int by = 1) {
    return each([&](int l) { return x.v[l + by < kWarp ? l + by : l]; });
  }
  // The value of lane number `lane`.
  static V from(const V& x, const I& lane) {
    return each([&](int l) { return x.v[lane.v[l] & (kWarp - 1)]; });
  }
  // a where `first` is not 0, else b.
  template <class P>
  static P choose(const I& first, const P& a, const P& b) {
    P r;
    for (int l = 0; l < kWarp; ++l) r.v[l] = first.v[l] ? a.v[l] : b.v[l];
    return r;
  }
};

#if defined(__CUDACC__)
__device__ __forceinline__ float2 load_two(const float* p) {
  return __ldg(reinterpret_cast<const float2*>(p));
}
__device__ __forceinline__ double2 load_two(const double* p) {
  return __ldg(reinterpret_cast<const double2*>(p));
}

template <class T>
struct DeviceWarp {
  using V = T;
  using I = std::int64_t;
  template <class S>
  using Each = S;
  static constexpr unsigned kAll = 0xffffffffu;

  template <class F>
  static __device__ __forceinline__ auto each(const F& f) {
    return f(int(threadIdx.x % kWarp));
  }
  template <class S, class F>
  static __device__ __forceinline__ V values(const S& lane, const F& f) {
    return f(lane);
  }
  template <class S, class F>
  static __device__ __forceinline__ I integers(const S& lane, const F& f) {
    return f(lane);
  }
  static __device__ __forceinline__ V zero() { return T(0); }
  static __device__ __forceinline__ V load(const T* p, I at, std::int64_t offset) {
    return __ldg(p + at + offset);
  }
  static __device__ __forceinline__ V load_or_zero(const T* p, I at, std::int64_t offset) {
    return at < 0 ? T(0) : p[at + offset];
  }
  static __device__ __forceinline__ void load2(const T* p, I at, std::int64_t offset, V& a, V& b) {
    const auto two = load_two(p + at + offset);
    a = two.x;
    b = two.y;
  }
  template <class To>
  static __device__ __forceinline__ void store(To* p, I at, std::int64_t offset, V value) {
    if (at >= 0) p[at + offset] = value;
  }
  static __device__ __forceinline__ V left(V x) { return __shfl_up_sync(kAll, x, 1); }
  static __device__ __forceinline__ V right(V x, int by = 1) {
    return __shfl_down_sync(kAll, x, by);
  }
  static __device__ __forceinline__ V from(V x, I lane) { return __shfl_sync(kAll, x, int(lane)); }
  template <class P>
  static __device__ __forceinline__ P choose(I first, P a, P b) {
    return first ? a : b;
  }
};
#endif

}  // namespace ntk
