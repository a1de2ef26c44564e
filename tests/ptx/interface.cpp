// What Python calls by ctypes. An error comes back as text, "" where there is none; it is valid
// until the next call.
#include <exception>
#include <string>

#include "machine.h"

namespace {

std::string text;

template <class F>
const char* caught(const F& f) {
  try {
    text = f();
  } catch (const std::exception& e) {
    text = e.what();
  }
  return text.c_str();
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

const char* ptx_load(const char* source) {
  return caught([&] { return ptx::Machine::get().load(source), ""; });
}
void* ptx_allocate(std::size_t bytes) { return ptx::Machine::get().allocate(bytes); }
const char* ptx_release(void* at) {
  return caught([&] { return ptx::Machine::get().release(at), ""; });
}
const char* ptx_copy(void* to, const void* from, std::size_t bytes) {
  return caught([&] { return ptx::Machine::get().copy(to, from, bytes), ""; });
}
void ptx_lend(const void* at, std::size_t bytes) { ptx::Machine::get().lend(at, bytes); }
const char* ptx_launch(const char* kernel, std::uint32_t blocks, std::uint32_t threads,
                       void** arguments) {
  return caught([&] { return ptx::Machine::get().launch(kernel, blocks, threads, arguments), ""; });
}
const char* ptx_counts() {
  return caught([] { return ptx::Machine::get().counts(); });
}
}
