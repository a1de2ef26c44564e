// Execution: the warps of a block, their lanes with a program counter each, barriers and shuffles.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "memory.h"
#include "program.h"

namespace ptx {

constexpr std::size_t kAlignment = 256;  // of everything that is handed out
inline unsigned char* aligned(unsigned char* p) {
  return p + (kAlignment - reinterpret_cast<std::uintptr_t>(p) % kAlignment) % kAlignment;
}

// One launch of a kernel, and what it has executed.
struct Launch {
  const Function& kernel;
  Memory& memory;
  std::uint32_t number, blocks, threads;  // threads of a block
  Region parameters;
  std::uint64_t steps = 0, lane_steps = 0;  // instructions of warps; of lanes
};

class Block {
 public:
  Block(Launch& launch, std::uint32_t index);
  void run();

  Launch& launch;
  const std::uint32_t index;
  std::uint32_t barriers = 0;  // passed so far
  std::vector<unsigned char> shared_bytes;
  Region shared;
};

class Warp {
 public:
  Warp(Block& block, std::uint32_t first_thread);

  // Runs every lane to its end or to a barrier.
  void run();
  bool any_ended() const { return alive_ != all_; }
  Lanes at_barrier() const { return at_barrier_; }
  void release();  // all threads of the block have come to the barrier
  // The instruction that lanes wait at.
  const Instruction& waits_at() const;

  // For instructions: the values of a register, checked to be written in these lanes; and a
  // register to write.
  const Bits* read(int number, const Instruction& at, Lanes lanes);
  Bits* write(int number, Lanes lanes) {
    written_[number] |= lanes;
    return &values_[std::size_t(number) * kWarp];
  }
  // For instructions: the bytes at an address of memory, after all checks.
  unsigned char* locate(const Instruction& at, int lane, std::uintptr_t address, std::size_t bytes,
                        bool write);
  [[noreturn]] void fail(const std::string& what, const Instruction& at, int lane) const;

 private:
  void fill_registers();
  void step();
  Lanes guarded(const Instruction& at, Lanes lanes);
  void shuffle(const Instruction& at, Lanes lanes, Lanes executing);
  void exchange(const Instruction& at, Lanes lanes);
  void wait_at_barrier(const Instruction& at, Lanes executing);
  void advance(Lanes lanes) {
    for (int l = 0; l < kWarp; ++l) counter_[l] += lanes >> l & 1;
  }
  Region* region(const Instruction& at, int lane, std::uintptr_t address, std::size_t bytes);

  Block& block_;
  const Function& kernel_;
  const std::uint32_t first_thread_;
  const Lanes all_;
  Lanes alive_, at_barrier_ = 0, at_shuffle_ = 0;
  std::array<int, kWarp> counter_{};
  std::vector<Bits> values_;    // [register][lane]
  std::vector<Lanes> written_;  // [register]
  std::vector<unsigned char> local_bytes_;
  std::vector<Region> local_;  // of every lane
};

}  // namespace ptx
