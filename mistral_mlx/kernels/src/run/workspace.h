// Memory that grows and stays, one per thread and slot: a product allocates nothing once it has been as large before.
// In large pages where the system has them: the rows of a long prompt lie on more small ones than a core remembers.
#pragma once
#include <sys/mman.h>

#include <cstdlib>
#include <memory>
#include <new>

#include "../contract.h"

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
    constexpr int64_t PAGE = 4096, LARGE_PAGE = 2 << 20;
    const int64_t alignment = bytes < LARGE_PAGE ? PAGE : LARGE_PAGE, rounded = round_up(bytes, alignment);
    void* larger = std::aligned_alloc(static_cast<size_t>(alignment), static_cast<size_t>(rounded));
    if (larger == nullptr) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
    if (bytes >= LARGE_PAGE) madvise(larger, static_cast<size_t>(rounded), MADV_HUGEPAGE);
#endif
    memory.reset(larger);
    size = rounded;
  }
  return static_cast<char*>(memory.get());
}

}  // namespace kernels
