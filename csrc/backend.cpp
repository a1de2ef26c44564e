#include "backend.h"

namespace ntk {

#define NTK_DECLARE(isa)                       \
  namespace isa {                              \
  void evaluate_float(const Tile<float>&);     \
  void evaluate_double(const Tile<double>&);   \
  std::int64_t workspace_bytes(const Program&); \
  }

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
       v4::evaluate_float, v4::evaluate_double},
      {"x86-64-v3",
       lacking(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2"),
               "this processor lacks AVX2, FMA or BMI2"),
       v3::evaluate_float, v3::evaluate_double},
      {"x86-64-v2", lacking(__builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("popcnt"), "this processor lacks SSE 4.2"),
       v2::evaluate_float, v2::evaluate_double},
#endif
      {"generic", nullptr, generic::evaluate_float, generic::evaluate_double},
  };
  *count = int(sizeof all / sizeof all[0]);
  return all;
}

std::int64_t workspace_bytes(const Program& program) { return generic::workspace_bytes(program); }

}  // namespace ntk
