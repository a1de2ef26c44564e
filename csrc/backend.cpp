#include "backend.h"

#include "cuda/emulation.h"
#include "stop.h"

namespace ntk {

__thread const bool* stop_flag = nullptr;

#define NTK_DECLARE(isa)                                                     \
  namespace isa {                                                            \
  void evaluate_float(const Tile<float>&);                                   \
  void evaluate_double(const Tile<double>&);                                 \
  void images_float(const ImageTile<float>&);                                \
  void images_double(const ImageTile<double>&);                              \
  void gradient(const GradientTile&);                                        \
  void self_strip(const SelfStrip&);                                         \
  std::int64_t image_bytes(const PlaneProgram&);                             \
  Extremes extremes(const float*, std::int64_t, std::int64_t, std::int64_t); \
  bool finite_float(const float*, std::int64_t);                             \
  bool finite_double(const double*, std::int64_t);                           \
  std::int64_t workspace_bytes(const Program&);                              \
  }
#define NTK_MEMBERS(isa)                                                                                            \
  isa::evaluate_float, isa::evaluate_double, isa::images_float, isa::images_double, isa::gradient, isa::self_strip, \
      isa::image_bytes, isa::extremes, isa::finite_float, isa::finite_double

NTK_DECLARE(generic)
#if defined(NTK_X86)
NTK_DECLARE(v2)
NTK_DECLARE(v3)
NTK_DECLARE(v4)

namespace {
const char* lacking(bool supported, const char* what) { return supported ? nullptr : what; }
}  // namespace
#endif

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
       lacking(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2"),
               "this processor lacks AVX2, FMA or BMI2"),
       NTK_MEMBERS(v3)},
      {"x86-64-v2",
       lacking(__builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("popcnt"), "this processor lacks SSE 4.2"),
       NTK_MEMBERS(v2)},
#endif
      {"generic", nullptr, NTK_MEMBERS(generic)},
      {"cuda-emulation", nullptr, [](const Tile<float>& tile) { Emulation::vectors(tile, {}); },
       [](const Tile<double>& tile) { Emulation::vectors(tile, {}); },
       [](const ImageTile<float>& tile) { Emulation::images(tile, {}); },
       [](const ImageTile<double>& tile) { Emulation::images(tile, {}); }, generic::gradient, generic::self_strip,
       generic::image_bytes, generic::extremes, generic::finite_float, generic::finite_double},
  };
  *count = int(sizeof all / sizeof all[0]);
  return all;
}

std::int64_t workspace_bytes(const Program& program) { return generic::workspace_bytes(program); }

}  // namespace ntk
