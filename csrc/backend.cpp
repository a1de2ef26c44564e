#include "backend.h"

#include "cuda/emulation.h"
#include "stop.h"

namespace ntk {

__thread const bool* stop_flag = nullptr;

#define NTK_DECLARE(isa)                                                     \
  namespace isa {                                                            \
  void evaluate(const Tile<float>&);                                         \
  void evaluate(const Tile<double>&);                                        \
  void evaluate_images(const ImageTile<float>&);                             \
  void evaluate_images(const ImageTile<double>&);                            \
  void evaluate_full(const FullTile<float>&);                                \
  void evaluate_full(const FullTile<double>&);                               \
  bool is_finite(const float*, std::int64_t);                                \
  bool is_finite(const double*, std::int64_t);                               \
  void gradient(const GradientTile&);                                        \
  void self_strip(const SelfStrip&);                                         \
  std::int64_t image_bytes(const PlaneProgram&);                             \
  void full_self(const FullSelf&);                                           \
  std::int64_t full_bytes(const FullProgram&);                               \
  Extremes extremes(const float*, std::int64_t, std::int64_t, std::int64_t); \
  std::int64_t workspace_bytes(const Program&);                              \
  }
#define NTK_CALLS(isa) {isa::evaluate, isa::evaluate_images, isa::evaluate_full, isa::is_finite}
#define NTK_MEMBERS(isa)                                                            \
  NTK_CALLS(isa), NTK_CALLS(isa), isa::gradient, isa::self_strip, isa::image_bytes, \
      isa::full_self, isa::full_bytes, isa::extremes

NTK_DECLARE(generic)
#if defined(NTK_X86)
NTK_DECLARE(v2)
NTK_DECLARE(v3)
NTK_DECLARE(v4)
#endif

namespace {

[[maybe_unused]] const char* lacking(bool supported, const char* what) {
  return supported ? nullptr : what;
}

// The GPU's backend on the host; what looks at numbers is the CPU's.
template <class T>
Calls<T> emulated(bool (*is_finite)(const T*, std::int64_t)) {
  return {[](const Tile<T>& tile) { Emulation::vectors(tile, {}); },
          [](const ImageTile<T>& tile) { Emulation::images(tile, {}); },
          [](const FullTile<T>& tile) { Emulation::full(tile, {}); }, is_finite};
}

}  // namespace

const Backend* backends(int* count) {
  static const Backend all[] = {
#if defined(NTK_X86)
      {"x86-64-v4",
       lacking(__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                   __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                   __builtin_cpu_supports("avx512vl"),
               "this processor lacks AVX-512 (F, BW, CD, DQ, VL)"),
       NTK_MEMBERS(v4)},
      {"x86-64-v3",
       lacking(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                   __builtin_cpu_supports("bmi2"),
               "this processor lacks AVX2, FMA or BMI2"),
       NTK_MEMBERS(v3)},
      {"x86-64-v2",
       lacking(__builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("popcnt"),
               "this processor lacks SSE 4.2"),
       NTK_MEMBERS(v2)},
#endif
      {"generic", nullptr, NTK_MEMBERS(generic)},
      {"cuda-emulation", nullptr, emulated<float>(generic::is_finite),
       emulated<double>(generic::is_finite), generic::gradient, generic::self_strip,
       generic::image_bytes, generic::full_self, generic::full_bytes, generic::extremes},
  };
  *count = int(sizeof all / sizeof all[0]);
  return all;
}

std::int64_t workspace_bytes(const Program& program) { return generic::workspace_bytes(program); }

}  // namespace ntk
