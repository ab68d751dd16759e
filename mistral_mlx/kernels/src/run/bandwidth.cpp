// How fast all threads together read memory: the limit of decoding, measured as `products` reads its weights, in large
// pages.
#include <chrono>
#include <memory>

#include "panels.h"
#include "pool.h"

namespace kernels {

double read_bandwidth(int64_t bytes, int repeats) {
  constexpr int64_t PIECE = 64 * 1024 / sizeof(uint64_t);
  const int64_t pieces = bytes / static_cast<int64_t>(sizeof(uint64_t)) / PIECE;
  const std::shared_ptr<uint8_t> memory = large_memory(pieces * PIECE * static_cast<int64_t>(sizeof(uint64_t)));
  uint64_t* const data = reinterpret_cast<uint64_t*>(memory.get());
  const std::unique_ptr<uint64_t[]> sums(new uint64_t[pieces]);
  parallel(pieces, [&](int64_t i) {
    for (int64_t k = 0; k < PIECE; ++k) data[i * PIECE + k] = static_cast<uint64_t>(k);
  });
  double best = 0;
  for (int n = 0; n < repeats; ++n) {
    const auto start = std::chrono::steady_clock::now();
    parallel(pieces, [&](int64_t i) {
      uint64_t parts[16] = {};
      for (int64_t k = 0; k < PIECE; k += 16) {
        __builtin_prefetch(&data[i * PIECE + k] + 512);  // 4 KB ahead, as the kernels do
        __builtin_prefetch(&data[i * PIECE + k] + 520);
        for (int j = 0; j < 16; ++j) parts[j] ^= data[i * PIECE + k + j];
      }
      uint64_t sum = 0;
      for (const uint64_t part : parts) sum ^= part;
      static_cast<volatile uint64_t*>(sums.get())[i] = sum;
    });
    const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
    const double rate = static_cast<double>(pieces * PIECE * sizeof(uint64_t)) / time.count();
    best = rate > best ? rate : best;
  }
  return best;
}

}  // namespace kernels
