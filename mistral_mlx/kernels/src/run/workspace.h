// Memory that grows and stays, one per thread and slot: a product allocates nothing once it has been as large before.
#pragma once
#include <cstdlib>
#include <memory>
#include <new>

#include "../contract.h"

namespace kernels {

enum class Slot { normalized, rounded, scratch, panels, second, angles, block, model };

template <Slot SLOT>
char* workspace(int64_t bytes) {
  struct Free {
    void operator()(void* p) const { std::free(p); }
  };
  thread_local std::unique_ptr<void, Free> memory;
  thread_local int64_t size = 0;
  if (size < bytes) {
    void* larger = std::aligned_alloc(64, static_cast<size_t>(round_up(bytes, 4096)));
    if (larger == nullptr) throw std::bad_alloc();
    memory.reset(larger);
    size = round_up(bytes, 4096);
  }
  return static_cast<char*>(memory.get());
}

}  // namespace kernels
