#include "memory.h"

#include <algorithm>

namespace ptx {
namespace {

// May `who` and the access noted run at the same time?
bool unordered(const Access& noted, const Access& who) {
  if (noted.launch != who.launch) return false;
  if (noted.block != who.block) return true;
  return noted.thread != who.thread && noted.barriers == who.barriers;
}

void note_read(Access& read, const Access& who) {
  const Access before = read;
  read = who;
  if (before.launch != who.launch) return;
  if (before.block != who.block) read.block = Marks::kSeveral;
  if (before.barriers == who.barriers && before.thread != who.thread) read.thread = Marks::kSeveral;
}

}  // namespace

void Region::set_written(std::uintptr_t at, std::size_t bytes) {
  if (!written_.empty()) std::fill_n(written_.begin() + (at - begin_), bytes, 1);
}

bool Region::is_written(std::uintptr_t at, std::size_t bytes) const {
  if (written_.empty()) return true;
  const auto first = written_.begin() + (at - begin_);
  return std::find(first, first + bytes, 0) == first + bytes;
}

const char* Region::collision(std::uintptr_t at, std::size_t bytes, const Access& who, bool write) {
  if (marks_.empty()) marks_.resize((end_ - begin_ + Marks::kWord - 1) / Marks::kWord);
  const std::size_t first = at - begin_;
  const char* found = nullptr;
  for (std::size_t word = first / Marks::kWord; word * Marks::kWord < first + bytes; ++word) {
    Marks& m = marks_[word];
    if (unordered(m.write, who)) found = "another thread's write";
    if (write && unordered(m.read, who)) found = "another thread's read";
    if (write)
      m.write = who;
    else
      note_read(m.read, who);
  }
  return found;
}

Region& Memory::add(const void* at, std::size_t bytes, bool written) {
  const Region region(at, bytes, written);
  for (auto i = by_end_.upper_bound(region.begin());
       i != by_end_.end() && i->second.begin() < region.end();)
    i = by_end_.erase(i);
  last_ = nullptr;
  return by_end_[region.end()] = region;
}

void Memory::remove(const void* at) {
  const auto begin = reinterpret_cast<std::uintptr_t>(at);
  const auto i = by_end_.upper_bound(begin);
  if (i == by_end_.end() || i->second.begin() != begin) throw Fault("freed what was not allocated");
  by_end_.erase(i);
  last_ = nullptr;
}

Region* Memory::find(std::uintptr_t at, std::size_t bytes) {
  if (last_ && last_->holds(at, bytes)) return last_;
  const auto i = by_end_.upper_bound(at);
  if (i == by_end_.end() || !i->second.holds(at, bytes)) return nullptr;
  return last_ = &i->second;
}

std::string Memory::neighbours(std::uintptr_t at) const {
  const auto size = [](const Region& r) { return std::to_string(r.end() - r.begin()); };
  std::string out;
  const auto above = by_end_.upper_bound(at);
  if (above != by_end_.begin()) {
    const Region& r = std::prev(above)->second;
    out = std::to_string(at - r.end()) + " bytes behind the end of an array of " + size(r);
  }
  if (above != by_end_.end()) {
    const Region& r = above->second;
    const bool before = at < r.begin();
    out += (out.empty() ? "" : ", ") + std::to_string(before ? r.begin() - at : r.end() - at) +
           " bytes before the " + (before ? "start" : "end") + " of an array of " + size(r);
  }
  return out.empty() ? "there is no array" : out;
}

}  // namespace ptx
