// The device's memory: regions with exact bounds, which bytes were ever written, and who touched
// which word.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "fault.h"
#include "program.h"

namespace ptx {

// One thread at one moment: threads of a block are ordered by barriers, blocks of a launch by
// nothing.
struct Access {
  std::uint32_t launch = 0, block = 0, thread = 0, barriers = 0;
};

// The last write and the last reads of one word of 4 bytes. Threads that write different bytes of
// one word race too.
struct Marks {
  static constexpr std::size_t kWord = 4;
  static constexpr std::uint32_t kSeveral = 0xffffffffu;
  Access write, read;
};

class Region {
 public:
  Region() = default;
  Region(const void* at, std::size_t bytes, bool written)
      : begin_(reinterpret_cast<std::uintptr_t>(at)),
        end_(begin_ + bytes),
        written_(written ? 0 : bytes) {}

  std::uintptr_t begin() const { return begin_; }
  std::uintptr_t end() const { return end_; }
  bool holds(std::uintptr_t at, std::size_t bytes) const {
    return begin_ <= at && at <= end_ && bytes <= end_ - at;
  }
  void set_written(std::uintptr_t at, std::size_t bytes);
  bool is_written(std::uintptr_t at, std::size_t bytes) const;
  // Notes the access; says what it collides with, or null.
  const char* collision(std::uintptr_t at, std::size_t bytes, const Access& who, bool write);

 private:
  std::uintptr_t begin_ = 0, end_ = 0;
  std::vector<unsigned char> written_;  // a byte for each; empty: all are
  std::vector<Marks> marks_;            // made when first needed
};

// Global memory.
class Memory {
 public:
  // What lay there before is forgotten.
  Region& add(const void* at, std::size_t bytes, bool written);
  void remove(const void* at);
  // The region that holds all these bytes, or null.
  Region* find(std::uintptr_t at, std::size_t bytes);
  // The regions nearest to an address, in words.
  std::string neighbours(std::uintptr_t at) const;
  std::size_t size() const { return by_end_.size(); }

 private:
  std::map<std::uintptr_t, Region> by_end_;
  Region* last_ = nullptr;
};

}  // namespace ptx
