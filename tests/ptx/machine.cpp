#include "machine.h"

#include <cstdlib>
#include <cstring>
#include <sstream>
#include <vector>

#include "fault.h"
#include "warp.h"

namespace ptx {

Machine& Machine::get() {
  // Lives until the process ends: kernels are unloaded late.
  static auto* const machine = new Machine;
  return *machine;
}

void Machine::load(const std::string& text) {
  const std::lock_guard<std::mutex> lock(mutex_);
  parse(text, program_);
  for (const auto& [at, bytes] : program_.global_regions)
    memory_.add(reinterpret_cast<void*>(at), bytes, true);
}

void* Machine::allocate(std::size_t bytes) {
  const std::lock_guard<std::mutex> lock(mutex_);
  void* const at = std::aligned_alloc(kAlignment, (bytes / kAlignment + 1) * kAlignment);
  if (at) memory_.add(at, bytes, false);
  return at;
}

void Machine::release(void* at) {
  const std::lock_guard<std::mutex> lock(mutex_);
  memory_.remove(at);
  std::free(at);
}

void Machine::copy(void* to, const void* from, std::size_t bytes) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto at = reinterpret_cast<std::uintptr_t>(to);
  if (Region* region = memory_.find(at, bytes))
    region->set_written(at, bytes);
  else
    throw Fault("copy out of bounds (" + memory_.neighbours(at) + ")");
  std::memcpy(to, from, bytes);
}

void Machine::lend(const void* at, std::size_t bytes) {
  const std::lock_guard<std::mutex> lock(mutex_);
  memory_.add(at, bytes, true);
}

void Machine::launch(const std::string& name, std::uint32_t blocks, std::uint32_t threads,
                     void** arguments) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = program_.kernels.find(name);
  if (found == program_.kernels.end()) throw Fault("no kernel " + name);
  const Function& kernel = found->second;
  std::vector<unsigned char> bytes(kernel.parameter_bytes + kAlignment);
  unsigned char* const parameters = aligned(bytes.data());
  for (std::size_t i = 0; i < kernel.parameters.size(); ++i)
    std::memcpy(parameters + kernel.parameters[i].offset, arguments[i], kernel.parameters[i].size);

  Launch launch{kernel, memory_, ++launches_,
                blocks, threads, Region(parameters, kernel.parameter_bytes, true)};
  for (std::uint32_t block = 0; block < blocks; ++block) Block(launch, block).run();
  Count& count = counts_[name];
  ++count.launches, count.steps += launch.steps, count.lane_steps += launch.lane_steps;
}

std::string Machine::counts() {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::ostringstream out;
  for (const auto& [name, c] : counts_)
    out << c.launches << ' ' << c.steps << ' ' << c.lane_steps << ' ' << name << '\n';
  return out.str();
}

}  // namespace ptx
