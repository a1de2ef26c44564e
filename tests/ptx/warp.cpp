#include "warp.h"

#include <cxxabi.h>

#include <algorithm>
#include <climits>
#include <cstdlib>
#include <memory>

namespace ptx {
namespace {

constexpr std::uint64_t kMostSteps = std::uint64_t(1) << 30;  // of a launch: it would never end

std::string readable(const std::string& name) {
  int status = 0;
  const std::unique_ptr<char, decltype(&std::free)> found(
      abi::__cxa_demangle(name.c_str(), nullptr, nullptr, &status), &std::free);
  return status == 0 ? found.get() : name;
}

Lanes first_lanes(std::uint32_t count) {
  return count >= kWarp ? ~Lanes(0) : (Lanes(1) << count) - 1;
}
int lowest(Lanes lanes) { return lanes ? __builtin_ctz(lanes) : 0; }

}  // namespace

// --- a block

Block::Block(Launch& l, std::uint32_t i)
    : launch(l),
      index(i),
      shared_bytes(l.kernel.shared_bytes + kAlignment),
      shared(aligned(shared_bytes.data()), l.kernel.shared_bytes, false) {}

// Warps run one after the other from barrier to barrier; the marks of memory find what another
// order would change.
void Block::run() {
  std::vector<Warp> warps;
  for (std::uint32_t first = 0; first < launch.threads; first += kWarp)
    warps.emplace_back(*this, first);
  for (bool waiting = true; waiting; ++barriers) {
    const Warp* waits = nullptr;
    bool ended = false;
    for (Warp& warp : warps) {
      warp.run();
      if (warp.at_barrier()) waits = &warp;
      ended |= warp.any_ended();
    }
    waiting = waits != nullptr;
    if (waits && ended)
      waits->fail("deadlock: a barrier waits for threads that have ended", waits->waits_at(),
                  lowest(waits->at_barrier()));
    for (Warp& warp : warps) warp.release();
  }
}

// --- a warp

Warp::Warp(Block& block, std::uint32_t first_thread)
    : block_(block),
      kernel_(block.launch.kernel),
      first_thread_(first_thread),
      all_(first_lanes(block.launch.threads - first_thread)),
      alive_(all_),
      values_(kernel_.registers.size() * kWarp),
      written_(kernel_.registers.size()),
      local_bytes_(kernel_.local_bytes ? std::size_t(kernel_.local_bytes) * kWarp + kAlignment
                                       : 0) {
  for (int l = 0; l < kWarp && kernel_.local_bytes; ++l)
    local_.emplace_back(aligned(local_bytes_.data()) + std::size_t(kernel_.local_bytes) * l,
                        kernel_.local_bytes, false);
  fill_registers();
}

// Addresses of shared memory are offsets of 32 bits, from here on.
constexpr std::uintptr_t kSharedStart = 4096;

void Warp::fill_registers() {
  const auto value = [&](const Register& r, int lane) -> Bits {
    switch (r.initial) {
      case Initial::tid_x:
        return first_thread_ + lane;
      case Initial::ctaid_x:
        return block_.index;
      case Initial::ntid_x:
        return block_.launch.threads;
      case Initial::nctaid_x:
        return block_.launch.blocks;
      case Initial::laneid:
        return lane;
      case Initial::local:
        return local_[lane].begin() + r.value;
      case Initial::shared:
        return kSharedStart + r.value;
      case Initial::parameter:
        return block_.launch.parameters.begin() + r.value;
      default:
        return r.value;
    }
  };
  for (std::size_t n = 0; n < kernel_.registers.size(); ++n) {
    const Register& r = kernel_.registers[n];
    if (r.initial == Initial::nothing) continue;
    for (int l = 0; l < kWarp; ++l) values_[n * kWarp + l] = value(r, l);
    written_[n] = ~Lanes(0);
  }
}

void Warp::fail(const std::string& what, const Instruction& at, int lane) const {
  throw Fault(what + ": `" + at.text + "`, block " + std::to_string(block_.index) + ", thread " +
              std::to_string(first_thread_ + lane) + ", kernel " + readable(kernel_.name));
}

const Instruction& Warp::waits_at() const {
  return kernel_.code[counter_[lowest(at_barrier_ | at_shuffle_)]];
}

void Warp::run() {
  while (alive_ & ~at_barrier_) step();
}

// One instruction, by the lanes that stand furthest back: that brings diverged lanes together
// again.
void Warp::step() {
  const Lanes ready = alive_ & ~at_barrier_ & ~at_shuffle_;
  if (!ready)
    fail("deadlock: a shuffle waits for lanes that wait elsewhere", waits_at(),
         lowest(at_shuffle_));
  int first = INT_MAX;
  for (int l = 0; l < kWarp; ++l)
    if (ready >> l & 1) first = std::min(first, counter_[l]);
  Lanes lanes = 0;
  for (int l = 0; l < kWarp; ++l) lanes |= Lanes((ready >> l & 1) && counter_[l] == first) << l;

  const Instruction& at = kernel_.code[first];
  const Lanes executing = guarded(at, lanes);
  if (++block_.launch.steps > kMostSteps) fail("the kernel seems never to end", at, lowest(lanes));
  block_.launch.lane_steps += __builtin_popcount(executing);
  switch (at.flow) {
    case Flow::next:
      if (executing) at.run(*this, at, executing);
      return advance(lanes);
    case Flow::branch:
      advance(lanes & ~executing);
      for (int l = 0; l < kWarp; ++l)
        if (executing >> l & 1) counter_[l] = at.target;
      return;
    case Flow::end:
      alive_ &= ~executing;
      return advance(lanes & ~executing);
    case Flow::shuffle:
      return shuffle(at, lanes, executing);
    case Flow::barrier:
      advance(lanes & ~executing);
      return wait_at_barrier(at, executing);
  }
}

Lanes Warp::guarded(const Instruction& at, Lanes lanes) {
  if (at.guard < 0) return lanes;
  const Bits* predicate = read(at.guard, at, lanes);
  Lanes set = 0;
  for (int l = 0; l < kWarp; ++l) set |= Lanes(predicate[l] & 1) << l;
  return lanes & (at.unless ? ~set : set);
}

void Warp::wait_at_barrier(const Instruction& at, Lanes executing) {
  at_barrier_ |= executing;
  for (int l = 0; l < kWarp; ++l)
    if ((at_barrier_ >> l & 1) && &kernel_.code[counter_[l]] != &at)
      fail("lanes of one warp wait at different barriers", at, l);
}

void Warp::release() {
  advance(at_barrier_);
  at_barrier_ = 0;
}

// Lanes wait until all that the mask (the fourth operand) names are here; then they exchange
// values.
void Warp::shuffle(const Instruction& at, Lanes lanes, Lanes executing) {
  advance(lanes & ~executing);
  if (!executing) return;
  const Bits* mask = read(at.from[3], at, executing);
  Lanes here = executing;
  for (int l = 0; l < kWarp; ++l)
    if ((at_shuffle_ >> l & 1) && &kernel_.code[counter_[l]] == &at) here |= Lanes(1) << l;
  Lanes named = 0;
  for (int l = 0; l < kWarp; ++l)
    if (executing >> l & 1) {
      if (!(mask[l] >> l & 1)) fail("the mask of a shuffle lacks the lane itself", at, l);
      named |= Lanes(mask[l]);
    }
  if (named & ~alive_)
    fail("a shuffle names lanes that have ended or never were", at, lowest(executing));
  at_shuffle_ |= executing;
  if (named & ~here) return;
  exchange(at, here);
  at_shuffle_ &= ~here;
  advance(here);
}

// The PTX manual's rules: a lane reads lane j of its segment, or itself where j lies outside.
void Warp::exchange(const Instruction& at, Lanes lanes) {
  std::array<Bits, kWarp> value;
  std::copy_n(read(at.from[0], at, lanes), kWarp, value.begin());
  const Bits *distance = read(at.from[1], at, lanes), *bounds = read(at.from[2], at, lanes);
  std::array<int, kWarp> source{};
  Lanes inside = 0;
  for (int l = 0; l < kWarp; ++l) {
    if (!(lanes >> l & 1)) continue;
    const int b = int(distance[l] & 31), segment = int(bounds[l] >> 8 & 31);
    const int most = (l & segment) | (int(bounds[l] & 31) & ~segment);
    int j = (l & segment) | (b & ~segment);
    if (at.shuffle == Shuffle::up) j = l - b;
    if (at.shuffle == Shuffle::down) j = l + b;
    if (at.shuffle == Shuffle::bfly) j = l ^ b;
    const bool in = at.shuffle == Shuffle::up ? j >= most : j <= most;
    source[l] = in ? j : l;
    inside |= Lanes(in) << l;
    if (!(lanes >> source[l] & 1)) fail("a shuffle reads a lane that takes no part", at, l);
  }
  Bits* to = write(at.to[0], lanes);
  for (int l = 0; l < kWarp; ++l)
    if (lanes >> l & 1) to[l] = std::uint32_t(value[source[l]]);
  if (at.to.size() < 2) return;
  Bits* predicate = write(at.to[1], lanes);
  for (int l = 0; l < kWarp; ++l)
    if (lanes >> l & 1) predicate[l] = inside >> l & 1;
}

// --- for instructions

const Bits* Warp::read(int number, const Instruction& at, Lanes lanes) {
  if (const Lanes missing = lanes & ~written_[number])
    fail("read of a register never written, " + kernel_.registers[number].name, at,
         lowest(missing));
  return &values_[std::size_t(number) * kWarp];
}

Region* Warp::region(const Instruction& at, int lane, std::uintptr_t address, std::size_t bytes) {
  const bool any = at.space == Space::generic;
  const auto take = [&](Space space, Region& r) {
    return (any || at.space == space) && r.holds(address, bytes) ? &r : nullptr;
  };
  if (Region* r = take(Space::shared, block_.shared)) return r;
  if (Region* r = take(Space::parameter, block_.launch.parameters)) return r;
  if (!local_.empty())
    if (Region* r = take(Space::local, local_[lane])) return r;
  return any || at.space == Space::global ? block_.launch.memory.find(address, bytes) : nullptr;
}

unsigned char* Warp::locate(const Instruction& at, int lane, std::uintptr_t address,
                            std::size_t bytes, bool write) {
  if (at.space == Space::shared) address += block_.shared.begin() - kSharedStart;
  Region* const r = region(at, lane, address, bytes);
  if (!r) {
    const bool global = at.space == Space::global || at.space == Space::generic;
    fail("out of bounds" + (global ? " (" + block_.launch.memory.neighbours(address) + ")" : ""),
         at, lane);
  }
  if (address % bytes) fail("misaligned address", at, lane);
  if (r == &block_.launch.parameters) {
    if (write) fail("write to a parameter", at, lane);
    return reinterpret_cast<unsigned char*>(address);
  }
  if (write)
    r->set_written(address, bytes);
  else if (!r->is_written(address, bytes))
    fail("read of memory never written", at, lane);
  if (local_.empty() || r != &local_[lane]) {
    const Access who{block_.launch.number, block_.index, first_thread_ + lane, block_.barriers};
    if (const char* with = r->collision(address, bytes, who, write))
      fail(std::string("race: a ") + (write ? "write" : "read") + " beside " + with, at, lane);
  }
  return reinterpret_cast<unsigned char*>(address);
}

}  // namespace ptx
