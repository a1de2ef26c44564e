// Arithmetic of one lane, as the PTX manual defines it: one struct an operation.
#pragma once

#include <algorithm>
#include <cfenv>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include "fault.h"
#include "program.h"

namespace ptx {

// --- values of one lane

template <class T>
T from_bits(Bits bits) {
  T value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
template <>
bool from_bits<bool>(Bits bits) {
  return bits & 1;
}
template <class T>
Bits to_bits(T value) {
  Bits bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  return bits;
}

template <class T>
T flushed(T x) {
  return std::fpclassify(x) == FP_SUBNORMAL ? std::copysign(T(0), x) : x;
}
template <class T>
T operand(const Instruction& at, Bits bits) {
  const T x = from_bits<T>(bits);
  if constexpr (std::is_same_v<T, float>) return at.ftz ? flushed(x) : x;
  return x;
}
template <class T>
Bits result(const Instruction& at, T x) {
  if constexpr (std::is_same_v<T, float>)
    if (at.ftz) x = flushed(x);
  if constexpr (std::is_floating_point_v<T>)
    if (at.sat) x = x > 0 ? std::min(x, T(1)) : T(0);  // NaN becomes 0
  return to_bits(x);
}

// The rounding of an instruction, while it runs.
class Rounding {
 public:
  explicit Rounding(const Instruction& at) : changed_(!at.integral && at.round > Round::rn) {
    if (changed_)
      std::fesetround(at.round == Round::rz   ? FE_TOWARDZERO
                      : at.round == Round::rm ? FE_DOWNWARD
                                              : FE_UPWARD);
  }
  ~Rounding() {
    if (changed_) std::fesetround(FE_TONEAREST);
  }

 private:
  const bool changed_;
};

// --- arithmetic

// Integers wrap: they are computed unsigned (16 bits as 32, which C++ would make signed).
template <class T, bool = std::is_integral_v<T> && !std::is_same_v<T, bool>>
struct Wrapping {
  using type = T;
};
template <class T>
struct Wrapping<T, true> {
  using type = std::conditional_t<(sizeof(T) > 4), std::uint64_t, std::uint32_t>;
};
template <class T>
using W = typename Wrapping<T>::type;
template <class T>
using Wide = std::conditional_t<std::is_signed_v<T>, __int128, unsigned __int128>;

// clang-format off
struct Move { template <class T> static T of(const Instruction&, T a) { return a; } };
struct Add { template <class T> static T of(const Instruction&, T a, T b) { return T(W<T>(a) + W<T>(b)); } };
struct Subtract { template <class T> static T of(const Instruction&, T a, T b) { return T(W<T>(a) - W<T>(b)); } };
struct Multiply { template <class T> static T of(const Instruction&, T a, T b) { return T(W<T>(a) * W<T>(b)); } };
struct MultiplyHigh {
  template <class T> static T of(const Instruction&, T a, T b) {
    return T((Wide<T>(a) * Wide<T>(b)) >> (8 * sizeof(T)));
  }
};
template <class To> struct MultiplyWide {
  template <class T> static To of(const Instruction&, T a, T b) { return To(a) * To(b); }
};
struct MultiplyAdd {
  template <class T> static T of(const Instruction&, T a, T b, T c) { return T(W<T>(a) * W<T>(b) + W<T>(c)); }
};
template <class To> struct MultiplyAddWide {
  template <class T> static To of(const Instruction&, T a, T b, To c) { return To(W<To>(To(a) * To(b)) + W<To>(c)); }
};
struct Fused { template <class T> static T of(const Instruction&, T a, T b, T c) { return std::fma(a, b, c); } };
struct Negate { template <class T> static T of(const Instruction&, T a) { return T(-W<T>(a)); } };
struct Absolute {
  template <class T> static T of(const Instruction&, T a) {
    if constexpr (std::is_floating_point_v<T>) return std::fabs(a);
    else return a < 0 ? T(-W<T>(a)) : a;
  }
};
// A NaN gives way to the other operand.
struct Least {
  template <class T> static T of(const Instruction&, T a, T b) {
    if constexpr (std::is_floating_point_v<T>) return std::fmin(a, b);
    else return std::min(a, b);
  }
};
struct Most {
  template <class T> static T of(const Instruction&, T a, T b) {
    if constexpr (std::is_floating_point_v<T>) return std::fmax(a, b);
    else return std::max(a, b);
  }
};
struct And { template <class T> static T of(const Instruction&, T a, T b) { return T(a & b); } };
struct Or { template <class T> static T of(const Instruction&, T a, T b) { return T(a | b); } };
struct ExclusiveOr { template <class T> static T of(const Instruction&, T a, T b) { return T(a ^ b); } };
struct Not {
  template <class T> static T of(const Instruction&, T a) { return T(~W<T>(a)); }
  static bool of(const Instruction&, bool a) { return !a; }
};
struct LeadingZeros {
  template <class T> static std::uint32_t of(const Instruction&, T a) {
    return a == 0 ? 8 * sizeof(T) : __builtin_clzll(a) - (64 - 8 * sizeof(T));
  }
};
struct SetBits {
  template <class T> static std::uint32_t of(const Instruction&, T a) { return __builtin_popcountll(a); }
};
struct Select { template <class T> static T of(const Instruction&, T a, T b, bool first) { return first ? a : b; } };
// Distances of the width or more shift everything out.
struct Left {
  template <class T> static T of(const Instruction&, T a, std::uint32_t by) { return by >= 8 * sizeof(T) ? T(0) : T(W<T>(a) << by); }
};
struct Right {
  template <class T> static T of(const Instruction&, T a, std::uint32_t by) {
    constexpr std::uint32_t most = 8 * sizeof(T) - 1;
    return by <= most ? T(a >> by) : std::is_signed_v<T> ? T(a >> most) : T(0);
  }
};

// --- roots and their like: the exact result, rounded; the hardware's is within some 1e-7 of it

struct Root { template <class T> static T of(const Instruction&, T a) { return std::sqrt(a); } };
struct InverseRoot { template <class T> static T of(const Instruction&, T a) { return T(1 / std::sqrt(double(a))); } };
struct Inverse { template <class T> static T of(const Instruction&, T a) { return T(1) / a; } };
struct Quotient { template <class T> static T of(const Instruction&, T a, T b) { return a / b; } };
// Beyond 2^126 the inverse of the divisor is flushed to 0.
struct QuotientApproximate {
  template <class T> static T of(const Instruction&, T a, T b) {
    return a * (std::fabs(b) > 0x1p126f ? std::copysign(T(0), b) : T(1) / b);
  }
};
struct PowerOfTwo { static float of(const Instruction&, float a) { return std::exp2(a); } };
struct Logarithm { static float of(const Instruction&, float a) { return std::log2(a); } };
struct Sine { static float of(const Instruction&, float a) { return std::sin(a); } };
struct Cosine { static float of(const Instruction&, float a) { return std::cos(a); } };
struct HyperbolicTangent { static float of(const Instruction&, float a) { return std::tanh(a); } };
// clang-format on

// --- integers' division, comparison, conversion

template <bool kRemainder>
struct Divide {
  template <class T>
  static T of(const Instruction& at, T a, T b) {
    if (b == 0) throw Fault("division by zero: `" + at.text + "`");
    if (std::is_signed_v<T> && b == T(-1)) return kRemainder ? T(0) : T(-W<T>(a));
    return kRemainder ? T(a % b) : T(a / b);
  }
};

struct Compared {
  template <class T>
  static bool of(const Instruction& at, T a, T b) {
    const bool nan = a != a || b != b;
    switch (at.compare) {
      case Compare::eq:
        return a == b;
      case Compare::ne:
        return !nan && a != b;
      case Compare::lt:
        return a < b;
      case Compare::le:
        return a <= b;
      case Compare::gt:
        return a > b;
      case Compare::ge:
        return a >= b;
      case Compare::equ:
        return nan || a == b;
      case Compare::neu:
        return nan || a != b;
      case Compare::ltu:
        return nan || a < b;
      case Compare::leu:
        return nan || a <= b;
      case Compare::gtu:
        return nan || a > b;
      case Compare::geu:
        return nan || a >= b;
      case Compare::num:
        return !nan;
      case Compare::nan:
        return nan;
    }
    return false;
  }
};

template <class T>
T to_integral(Round round, T x) {
  if (round == Round::rz) return std::trunc(x);
  if (round == Round::rm) return std::floor(x);
  if (round == Round::rp) return std::ceil(x);
  return std::nearbyint(x);
}

// Floats saturate to the range of an integer; NaN becomes 0.
template <class To>
struct Convert {
  template <class From>
  static To of(const Instruction& at, From x) {
    if constexpr (!std::is_floating_point_v<From>) {
      return To(x);
    } else if constexpr (std::is_floating_point_v<To>) {
      return To(at.integral ? to_integral(at.round, x) : x);
    } else {
      const From whole = to_integral(at.round, x);
      if (whole != whole) return 0;
      if (whole >= std::ldexp(From(1), std::numeric_limits<To>::digits))
        return std::numeric_limits<To>::max();
      if (whole <= From(std::numeric_limits<To>::min())) return std::numeric_limits<To>::min();
      return To(whole);
    }
  }
};

}  // namespace ptx
