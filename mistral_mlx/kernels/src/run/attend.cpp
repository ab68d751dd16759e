// Attention on all threads, see attend.h: a piece is the query heads of one key head at a few positions.
#include "attend.h"

#include <algorithm>

#include "pool.h"
#include "workspace.h"

namespace kernels {
namespace {

constexpr int64_t ROWS = 48;  // queries that share a tile of keys while it is in the L1 and L2 caches

}  // namespace

void attend_all(const Attention& a) {
  const int64_t repeats = a.heads / a.kv_heads, step = std::min(a.queries, std::max<int64_t>(1, ROWS / repeats)),
                blocks = (a.queries + step - 1) / step;
  parallel(a.batch * a.kv_heads * blocks, [&](int64_t i) {
    const int64_t block = blocks - 1 - i % blocks, head = i / blocks;  // the last positions have the most to do
    float* scratch = reinterpret_cast<float*>(workspace<Slot::scratch>(attention_scratch(repeats * step, a.head_dim)));
    active().attend(a, head / a.kv_heads, head % a.kv_heads, block * step, std::min(step, a.queries - block * step),
                    scratch);
  });
}

}  // namespace kernels
