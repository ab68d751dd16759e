// Attention on all threads, see attend.h: a piece is the query heads of one key head at a few positions.
#include "attend.h"

#include <algorithm>

#include "pool.h"
#include "workspace.h"

namespace kernels {
namespace {

constexpr int64_t ROWS = 48;  // queries that share a tile of keys while it is in the L1 and L2 caches

// An attention in pieces of `step` positions of a key head.
struct Pieces {
  explicit Pieces(const Attention& a)
      : a(a),
        repeats(a.heads / a.kv_heads),
        step(std::min(a.queries, std::max<int64_t>(1, ROWS / repeats))),
        blocks((a.queries + step - 1) / step) {}

  int64_t count() const { return a.batch * a.kv_heads * blocks; }
  void attend(int64_t i) const {
    const int64_t block = blocks - 1 - i % blocks, head = i / blocks;  // the last positions have the most to do
    float* scratch = reinterpret_cast<float*>(workspace<Slot::scratch>(attention_scratch(repeats * step, a.head_dim)));
    active().attend(a, head / a.kv_heads, head % a.kv_heads, block * step, std::min(step, a.queries - block * step),
                    scratch);
  }

  const Attention& a;
  int64_t repeats, step, blocks;
};

}  // namespace

void attend_all(const std::vector<Attention>& all) {
  const std::vector<Pieces> parts(all.begin(), all.end());
  int64_t n = 0;
  for (const Pieces& part : parts) n += part.count();
  parallel(n, [&](int64_t i) {
    const Pieces* part = parts.data();
    for (; i >= part->count(); ++part) i -= part->count();
    part->attend(i);
  });
}

}  // namespace kernels
