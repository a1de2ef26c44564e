// A kernel as the interpreter holds it: decoded instructions over numbered registers.
//
// Everything an instruction reads is a register of 64 bits a lane: constants, special registers
// (%tid.x) and addresses of variables are registers too, filled when a warp starts.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace ptx {

using Bits = std::uint64_t;
using Lanes = std::uint32_t;  // one bit a lane
constexpr int kWarp = 32;

enum class Space { generic, global, shared, local, parameter };
enum class Flow { next, branch, end, shuffle, barrier };
enum class Shuffle { up, down, bfly, idx };
enum class Compare { eq, ne, lt, le, gt, ge, equ, neu, ltu, leu, gtu, geu, num, nan };
enum class Round { none, rn, rz, rm, rp };

class Warp;
struct Instruction;
using Run = void (*)(Warp&, const Instruction&, Lanes);

struct Instruction {
  Run run = nullptr;  // what it does to the lanes given; null for those that steer (flow)
  Flow flow = Flow::next;
  std::string text;
  int guard = -1;  // predicate register, or -1
  bool unless = false;
  std::vector<int> to, from;  // registers
  int target = -1;            // of a branch
  std::int64_t offset = 0;    // of an address
  Space space = Space::generic;
  Shuffle shuffle = Shuffle::idx;
  Compare compare = Compare::eq;
  Round round = Round::none;
  bool ftz = false, sat = false, integral = false;  // integral: cvt.rni and its like
  int parts = 1;                                    // of a vector, or of what mov packs
};

// What a register holds before the first instruction.
enum class Initial {
  nothing,
  constant,
  tid_x,
  ctaid_x,
  ntid_x,
  nctaid_x,
  laneid,
  local,
  shared,
  parameter
};
struct Register {
  std::string name;
  Initial initial = Initial::nothing;
  Bits value = 0;  // a constant, or the offset in its space
};

struct Parameter {
  int offset, size;
};

struct Function {
  std::string name;
  std::vector<Parameter> parameters;
  int parameter_bytes = 0, local_bytes = 0, shared_bytes = 0;
  std::vector<Register> registers;
  std::vector<Instruction> code;
};

struct Program {
  std::map<std::string, Function> kernels;
  // What the module's variables lie in.
  std::vector<std::unique_ptr<std::vector<unsigned char>>> globals;
  std::vector<std::pair<std::uintptr_t, std::size_t>> global_regions;  // their addresses and bytes
};

// Adds the kernels of a PTX text. Throws Fault where the text makes no sense.
void parse(const std::string& text, Program& program);

// Sets what `name` (such as "fma.rn.ftz.f32") does; one that is not known faults when it is
// executed.
void decode(const std::string& name, Instruction& instruction);

}  // namespace ptx
