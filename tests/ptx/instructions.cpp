// What the instructions do: from names such as "fma.rn.ftz.f32" to functions over the lanes of a
// warp.
#include <algorithm>
#include <array>
#include <map>
#include <sstream>

#include "arithmetic.h"
#include "program.h"
#include "warp.h"

namespace ptx {
namespace {

// The first destination := F(operands), for every lane.
template <class F, class To, class A>
void unary(Warp& w, const Instruction& at, Lanes lanes) {
  const Rounding rounding(at);
  const Bits* a = w.read(at.from[0], at, lanes);
  Bits* to = w.write(at.to[0], lanes);
  for (int l = 0; l < kWarp; ++l)
    if (lanes >> l & 1) to[l] = result<To>(at, F::of(at, operand<A>(at, a[l])));
}
template <class F, class To, class A, class B = A>
void binary(Warp& w, const Instruction& at, Lanes lanes) {
  const Rounding rounding(at);
  const Bits *a = w.read(at.from[0], at, lanes), *b = w.read(at.from[1], at, lanes);
  Bits* to = w.write(at.to[0], lanes);
  for (int l = 0; l < kWarp; ++l)
    if (lanes >> l & 1)
      to[l] = result<To>(at, F::of(at, operand<A>(at, a[l]), operand<B>(at, b[l])));
}
template <class F, class To, class A, class C = A>
void ternary(Warp& w, const Instruction& at, Lanes lanes) {
  const Rounding rounding(at);
  const Bits *a = w.read(at.from[0], at, lanes), *b = w.read(at.from[1], at, lanes),
             *c = w.read(at.from[2], at, lanes);
  Bits* to = w.write(at.to[0], lanes);
  for (int l = 0; l < kWarp; ++l)
    if (lanes >> l & 1)
      to[l] = result<To>(
          at, F::of(at, operand<A>(at, a[l]), operand<A>(at, b[l]), operand<C>(at, c[l])));
}

// --- memory and packing

template <class T>
void load(Warp& w, const Instruction& at, Lanes lanes) {
  const Bits* address = w.read(at.from[0], at, lanes);
  const unsigned char* from[kWarp] = {};
  for (int l = 0; l < kWarp; ++l)
    if (lanes >> l & 1)
      from[l] = w.locate(at, l, address[l] + at.offset, at.parts * sizeof(T), false);
  for (int part = 0; part < at.parts; ++part) {
    Bits* to = w.write(at.to[part], lanes);
    for (int l = 0; l < kWarp; ++l) {
      if (!(lanes >> l & 1)) continue;
      T value;
      std::memcpy(&value, from[l] + part * sizeof(T), sizeof(T));
      if constexpr (std::is_integral_v<T>)
        to[l] = Bits(std::int64_t(value));  // registers may be wider: the sign goes with it
      else
        to[l] = to_bits(value);
    }
  }
}

template <class T>
void store(Warp& w, const Instruction& at, Lanes lanes) {
  const Bits* address = w.read(at.from[0], at, lanes);
  unsigned char* to[kWarp] = {};
  for (int l = 0; l < kWarp; ++l)
    if (lanes >> l & 1) to[l] = w.locate(at, l, address[l] + at.offset, at.parts * sizeof(T), true);
  for (int part = 0; part < at.parts; ++part) {
    const Bits* value = w.read(at.from[part + 1], at, lanes);
    for (int l = 0; l < kWarp; ++l)
      if (lanes >> l & 1) std::memcpy(to[l] + part * sizeof(T), &value[l], sizeof(T));
  }
}

// mov.b64 %rd, {%r1, %r2} and back.
template <class T>
void pack(Warp& w, const Instruction& at, Lanes lanes) {
  const int width = 8 * sizeof(T) / at.parts;
  const Bits mask = (Bits(1) << width) - 1;
  std::array<Bits, kWarp> all{};
  for (int part = 0; part < at.parts; ++part) {
    const Bits* from = w.read(at.from[part], at, lanes);
    for (int l = 0; l < kWarp; ++l) all[l] |= (from[l] & mask) << (part * width);
  }
  Bits* to = w.write(at.to[0], lanes);
  for (int l = 0; l < kWarp; ++l)
    if (lanes >> l & 1) to[l] = all[l];
}
template <class T>
void unpack(Warp& w, const Instruction& at, Lanes lanes) {
  const int width = 8 * sizeof(T) / at.parts;
  const Bits mask = (Bits(1) << width) - 1;
  std::array<Bits, kWarp> all;
  std::copy_n(w.read(at.from[0], at, lanes), kWarp, all.begin());
  for (int part = 0; part < at.parts; ++part) {
    Bits* to = w.write(at.to[part], lanes);
    for (int l = 0; l < kWarp; ++l)
      if (lanes >> l & 1) to[l] = all[l] >> (part * width) & mask;
  }
}

// bfi: the low `length` bits of a into b from bit `position` on.
void insert_bits(Warp& w, const Instruction& at, Lanes lanes) {
  const Bits *a = w.read(at.from[0], at, lanes), *b = w.read(at.from[1], at, lanes),
             *position = w.read(at.from[2], at, lanes), *length = w.read(at.from[3], at, lanes);
  Bits* to = w.write(at.to[0], lanes);
  for (int l = 0; l < kWarp; ++l) {
    if (!(lanes >> l & 1)) continue;
    const Bits p = position[l] & 255, n = std::min<Bits>(length[l] & 255, 32);
    const Bits mask = p < 32 ? (((Bits(1) << n) - 1) << p) & 0xffffffff : 0;
    to[l] = (b[l] & ~mask & 0xffffffff) | (p < 32 ? a[l] << p & mask : 0);
  }
}

// --- names

template <class T>
struct Type {
  using type = T;
};
// f(Type<T>{}) for the type of a name; null for those that F is not made for.
template <class F>
Run of_float(const std::string& t, F f) {
  return t == "f32" ? f(Type<float>{}) : t == "f64" ? f(Type<double>{}) : nullptr;
}
template <class F>
Run of_integer(const std::string& t, F f) {
  if (t == "u8" || t == "b8") return f(Type<std::uint8_t>{});
  if (t == "u16" || t == "b16") return f(Type<std::uint16_t>{});
  if (t == "u32" || t == "b32") return f(Type<std::uint32_t>{});
  if (t == "u64" || t == "b64") return f(Type<std::uint64_t>{});
  if (t == "s8") return f(Type<std::int8_t>{});
  if (t == "s16") return f(Type<std::int16_t>{});
  if (t == "s32") return f(Type<std::int32_t>{});
  if (t == "s64") return f(Type<std::int64_t>{});
  return nullptr;
}
template <class F>
Run of_number(const std::string& t, F f) {
  const Run found = of_float(t, f);
  return found ? found : of_integer(t, f);
}
template <class F>
Run of_bits(const std::string& t, F f) {
  return t == "pred" ? f(Type<bool>{}) : of_integer(t, f);
}
// Twice as wide, for .wide.
template <class T>
struct Doubled;
// clang-format off
template <> struct Doubled<std::uint16_t> { using type = std::uint32_t; };
template <> struct Doubled<std::int16_t> { using type = std::int32_t; };
template <> struct Doubled<std::uint32_t> { using type = std::uint64_t; };
template <> struct Doubled<std::int32_t> { using type = std::int64_t; };
template <class F>
Run of_half(const std::string& t, F f) {
  return t == "u16" ? f(Type<std::uint16_t>{}) : t == "s16" ? f(Type<std::int16_t>{}) : t == "u32" ? f(Type<std::uint32_t>{})
       : t == "s32" ? f(Type<std::int32_t>{}) : nullptr;
}
// clang-format on

#define UNARY(F)                          \
  [](auto t) -> Run {                     \
    using T = typename decltype(t)::type; \
    return unary<F, T, T>;                \
  }
#define BINARY(F)                         \
  [](auto t) -> Run {                     \
    using T = typename decltype(t)::type; \
    return binary<F, T, T>;               \
  }
#define TERNARY(F)                        \
  [](auto t) -> Run {                     \
    using T = typename decltype(t)::type; \
    return ternary<F, T, T>;              \
  }

// The words of a name, taken off as they are understood: what is left over makes the instruction
// unknown.
class Words {
 public:
  explicit Words(const std::string& name) {
    std::istringstream in(name);
    for (std::string word; std::getline(in, word, '.');) words_.push_back(word);
  }
  bool take(const std::string& word) {
    const auto i = std::find(words_.begin(), words_.end(), word);
    if (i == words_.end()) return false;
    words_.erase(i);
    return true;
  }
  std::string first() { return taken(words_.begin()); }
  std::string last() { return taken(words_.end() - 1); }
  bool empty() const { return words_.empty(); }

 private:
  std::string taken(std::vector<std::string>::iterator i) {
    if (words_.empty()) return "";
    const std::string word = *i;
    words_.erase(i);
    return word;
  }
  std::vector<std::string> words_;
};

Run product(Words& words, const std::string& t) {
  if (words.take("wide"))
    return of_half(t, [](auto tag) -> Run {
      using T = typename decltype(tag)::type;
      using To = typename Doubled<T>::type;
      return binary<MultiplyWide<To>, To, T>;
    });
  if (words.take("hi")) return of_integer(t, BINARY(MultiplyHigh));
  return words.take("lo") ? of_integer(t, BINARY(Multiply)) : of_float(t, BINARY(Multiply));
}

Run product_and_sum(Words& words, const std::string& t) {
  if (words.take("wide"))
    return of_half(t, [](auto tag) -> Run {
      using T = typename decltype(tag)::type;
      using To = typename Doubled<T>::type;
      return ternary<MultiplyAddWide<To>, To, T, To>;
    });
  return words.take("lo") ? of_integer(t, TERNARY(MultiplyAdd)) : of_float(t, TERNARY(Fused));
}

Run division(Words& words, const std::string& t) {
  if (words.take("approx")) return of_float(t, BINARY(QuotientApproximate));
  words.take("full");
  const Run found = of_float(t, BINARY(Quotient));
  return found ? found : of_integer(t, BINARY(Divide<false>));
}

Run comparison(Words& words, const std::string& t, Instruction& at) {
  static const std::map<std::string, Compare> names = {
      {"eq", Compare::eq},   {"ne", Compare::ne},   {"lt", Compare::lt},   {"le", Compare::le},
      {"gt", Compare::gt},   {"ge", Compare::ge},   {"lo", Compare::lt},   {"ls", Compare::le},
      {"hi", Compare::gt},   {"hs", Compare::ge},   {"equ", Compare::equ}, {"neu", Compare::neu},
      {"ltu", Compare::ltu}, {"leu", Compare::leu}, {"gtu", Compare::gtu}, {"geu", Compare::geu},
      {"num", Compare::num}, {"nan", Compare::nan}};
  const auto found = names.find(words.first());
  if (found == names.end()) return nullptr;
  at.compare = found->second;
  return of_number(t, [](auto tag) -> Run {
    using T = typename decltype(tag)::type;
    return binary<Compared, bool, T>;
  });
}

Run conversion(Words& words, const std::string& from, const Instruction& at) {
  const std::string to = words.last();
  if (at.sat && to[0] != 'f') return nullptr;
  return of_number(to, [&](auto tag) -> Run {
    using To = typename decltype(tag)::type;
    return of_number(from, [](auto other) -> Run {
      using From = typename decltype(other)::type;
      return unary<Convert<To>, To, From>;
    });
  });
}

Run move(const std::string& t, Instruction& at) {
  at.parts = int(std::max(at.to.size(), at.from.size()));
  if (at.parts > 1)
    return of_integer(t, [&](auto tag) -> Run {
      using T = typename decltype(tag)::type;
      return at.to.size() > 1 ? unpack<T> : pack<T>;
    });
  if (t == "pred") return unary<Move, bool, bool>;
  return of_number(t, UNARY(Move));
}

void set_space(Words& words, Instruction& at) {
  static const std::pair<const char*, Space> names[] = {{"global", Space::global},
                                                        {"shared", Space::shared},
                                                        {"local", Space::local},
                                                        {"param", Space::parameter}};
  for (const auto& [name, space] : names)
    if (words.take(name)) at.space = space;
  words.take("nc"), words.take("volatile");
  words.take("v2"), words.take("v4");
}

Run access(Words& words, const std::string& t, Instruction& at, bool write) {
  set_space(words, at);
  at.parts = write ? int(at.from.size()) - 1 : int(at.to.size());
  return of_number(t, [&](auto tag) -> Run {
    using T = typename decltype(tag)::type;
    return write ? store<T> : load<T>;
  });
}

// Addresses are the same in every space here.
Run address_conversion(Words& words, Instruction& at) {
  set_space(words, at), words.take("to");
  return unary<Move, std::uint64_t, std::uint64_t>;
}

Flow steering(const std::string& operation, Words& words, Instruction& at) {
  static const std::map<std::string, Shuffle> shuffles = {
      {"up", Shuffle::up}, {"down", Shuffle::down}, {"bfly", Shuffle::bfly}, {"idx", Shuffle::idx}};
  if (operation == "bra") return words.take("uni"), Flow::branch;
  if (operation == "ret" || operation == "exit") return words.take("uni"), Flow::end;
  if ((operation == "bar" || operation == "barrier") && words.take("sync") && at.from.size() == 1)
    return words.take("aligned"), words.take("cta"), Flow::barrier;
  if (operation != "shfl" || !words.take("sync")) return Flow::next;
  const auto found = shuffles.find(words.first());
  if (found == shuffles.end() || !words.take("b32") || at.from.size() != 4) return Flow::next;
  at.shuffle = found->second;
  return Flow::shuffle;
}

Run arithmetic(const std::string& operation, Words& words, const std::string& t, Instruction& at) {
  const bool real = t == "f32" || t == "f64";
  if (operation == "add") return of_number(t, BINARY(Add));
  if (operation == "sub") return of_number(t, BINARY(Subtract));
  if (operation == "mul") return product(words, t);
  if (operation == "mad") return product_and_sum(words, t);
  if (operation == "fma") return of_float(t, TERNARY(Fused));
  if (operation == "div") return division(words, t);
  if (operation == "rem") return of_integer(t, BINARY(Divide<true>));
  if (operation == "neg") return of_number(t, UNARY(Negate));
  if (operation == "abs") return of_number(t, UNARY(Absolute));
  if (operation == "min") return of_number(t, BINARY(Least));
  if (operation == "max") return of_number(t, BINARY(Most));
  if (operation == "and") return of_bits(t, BINARY(And));
  if (operation == "or") return of_bits(t, BINARY(Or));
  if (operation == "xor") return of_bits(t, BINARY(ExclusiveOr));
  if (operation == "not") return of_bits(t, UNARY(Not));
  if (operation == "setp") return comparison(words, t, at);
  if (operation == "cvt") return conversion(words, t, at);
  if (operation == "bfi" && t == "b32") return insert_bits;
  if (operation == "clz" || operation == "popc") {
    const bool zeros = operation == "clz";
    using U32 = std::uint32_t;
    using U64 = std::uint64_t;
    if (t == "b32") return zeros ? unary<LeadingZeros, U32, U32> : unary<SetBits, U32, U32>;
    if (t == "b64") return zeros ? unary<LeadingZeros, U32, U64> : unary<SetBits, U32, U64>;
  }
  if (operation == "shl" || operation == "shr")
    return of_integer(t, [&](auto tag) -> Run {
      using T = typename decltype(tag)::type;
      return operation == "shl" ? binary<Left, T, T, std::uint32_t>
                                : binary<Right, T, T, std::uint32_t>;
    });
  if (operation == "selp")
    return of_number(t, [](auto tag) -> Run {
      using T = typename decltype(tag)::type;
      return ternary<Select, T, T, bool>;
    });
  if (!real) return nullptr;
  words.take("approx");
  if (operation == "sqrt") return of_float(t, UNARY(Root));
  if (operation == "rsqrt") return of_float(t, UNARY(InverseRoot));
  if (operation == "rcp") return of_float(t, UNARY(Inverse));
  if (t != "f32") return nullptr;
  if (operation == "ex2") return unary<PowerOfTwo, float, float>;
  if (operation == "lg2") return unary<Logarithm, float, float>;
  if (operation == "sin") return unary<Sine, float, float>;
  if (operation == "cos") return unary<Cosine, float, float>;
  if (operation == "tanh") return unary<HyperbolicTangent, float, float>;
  return nullptr;
}

void set_rounding(Words& words, Instruction& at) {
  static const std::pair<const char*, Round> names[] = {
      {"rn", Round::rn}, {"rz", Round::rz}, {"rm", Round::rm}, {"rp", Round::rp}};
  for (const auto& [name, round] : names) {
    if (words.take(name)) at.round = round;
    if (words.take(std::string(name) + "i")) at.round = round, at.integral = true;
  }
}

void unknown(Warp& w, const Instruction& at, Lanes lanes) {
  w.fail("this interpreter does not know the instruction", at, __builtin_ctz(lanes));
}

}  // namespace

void decode(const std::string& name, Instruction& at) {
  Words words(name);
  const std::string operation = words.first();
  at.ftz = words.take("ftz"), at.sat = words.take("sat");
  set_rounding(words, at);
  at.flow = steering(operation, words, at);
  if (at.flow == Flow::next) {
    const std::string t = words.last();
    if (operation == "ld" || operation == "st")
      at.run = access(words, t, at, operation == "st");
    else if (operation == "mov")
      at.run = move(t, at);
    else if (operation == "cvta")
      at.run = address_conversion(words, at);
    else
      at.run = arithmetic(operation, words, t, at);
  }
  if (!words.empty() || (at.flow == Flow::next && !at.run)) at.flow = Flow::next, at.run = unknown;
}

}  // namespace ptx
