// A block of threads as one object: the same template runs on the device, where threads run side by
// side, and on the host, where they run one after another from one sync() to the next (tests
// without a GPU).
#pragma once

#include "../math/portable.h"

namespace ntk {

template <int kThreads>
struct HostBlock {
  // What every thread has of its own; it lasts from phase to phase.
  template <class S>
  struct Own {
    S values[kThreads];
    S& operator[](int thread) { return values[thread]; }
  };
  // f(thread) of every thread.
  template <class F>
  static void each(const F& f) {
    for (int thread = 0; thread < kThreads; ++thread) f(thread);
  }
  static void sync() {}  // what each() before wrote to shared memory can be read
};

#if defined(__CUDACC__)
template <int kThreads>
struct DeviceBlock {
  template <class S>
  struct Own {
    S value;
    __device__ __forceinline__ S& operator[](int) { return value; }
  };
  // volatile: what follows from the thread's number is made anew in every phase, not held in
  // registers throughout.
  template <class F>
  static __device__ __forceinline__ void each(const F& f) {
    int thread;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(thread));
    f(thread);
  }
  static __device__ __forceinline__ void sync() { __syncthreads(); }
};
#endif

}  // namespace ntk
