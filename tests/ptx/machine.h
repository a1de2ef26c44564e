// The machine as a whole: loaded kernels, memory, launches one at a time, counts.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>

#include "memory.h"
#include "program.h"

namespace ptx {

struct Count {
  std::uint64_t launches = 0, steps = 0, lane_steps = 0;
};

class Machine {
 public:
  static Machine& get();

  void load(const std::string& text);
  // Memory that was never written; null where there is none left.
  void* allocate(std::size_t bytes);
  void release(void* at);
  void copy(void* to, const void* from, std::size_t bytes);
  void lend(const void* at, std::size_t bytes);  // memory of the host that kernels may use
  // arguments: a pointer to each.
  void launch(const std::string& kernel, std::uint32_t blocks, std::uint32_t threads,
              void** arguments);
  // A line a kernel: launches, instructions of warps, of lanes, name.
  std::string counts();

 private:
  std::mutex mutex_;
  Program program_;
  Memory memory_;
  std::uint32_t launches_ = 0;
  std::map<std::string, Count> counts_;
};

}  // namespace ptx
