// Memory that grows and stays, one per thread and slot: a product allocates nothing once it has been as large before.
// What is large lies in large pages, as the rows of a long prompt do.
#pragma once
#include <cstdlib>
#include <memory>
#include <new>

#include "../contract.h"
#include "large_pages.h"

namespace kernels {

enum class Slot { normalized, rounded, scratch, panels, second, angles, block, mixture, model };

template <Slot SLOT>
char* workspace(int64_t bytes) {
  struct Free {
    void operator()(void* p) const { std::free(p); }
  };
  thread_local std::unique_ptr<void, Free> memory;
  thread_local int64_t size = 0;
  if (size < bytes) {
    constexpr int64_t PAGE = 4096;
    const int64_t alignment = bytes < LARGE_PAGE ? PAGE : LARGE_PAGE, rounded = round_up(bytes, alignment);
    void* larger = std::aligned_alloc(static_cast<size_t>(alignment), static_cast<size_t>(rounded));
    if (larger == nullptr) throw std::bad_alloc();
    if (bytes >= LARGE_PAGE) ask_for_large_pages(larger, rounded);
    memory.reset(larger);
    size = rounded;
  }
  return static_cast<char*>(memory.get());
}

}  // namespace kernels
