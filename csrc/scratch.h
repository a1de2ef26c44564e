// Scratch memory of backends, aligned to 64 bytes: a cache line, and the widest vector.
#pragma once

#include <cstdint>
#include <memory>
#include <new>

namespace ntk {

class AlignedMemory {
 public:
  explicit AlignedMemory(std::int64_t bytes) : memory_(::operator new(bytes, kAlignment)) {}
  void* get() const { return memory_.get(); }

 private:
  static constexpr std::align_val_t kAlignment{64};
  struct Free {
    void operator()(void* p) const { ::operator delete(p, kAlignment); }
  };
  std::unique_ptr<void, Free> memory_;
};

}  // namespace ntk
