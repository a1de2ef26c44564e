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

// The calling thread's memory, kept for its next call and until it ends: of many pages, new ones
// cost as much as what is done in them. One use at a time.
inline void* kept_memory(std::int64_t bytes) {
  static thread_local std::unique_ptr<AlignedMemory> memory;
  static thread_local std::int64_t size = 0;
  if (bytes > size) {
    memory.reset();
    memory = std::make_unique<AlignedMemory>(bytes);
    size = bytes;
  }
  return memory->get();
}

}  // namespace ntk
