// A transformer block for one token, see block.h; model.py says the same in single steps.
#include "block.h"

#include "../parts/scalars.h"
#include "attend.h"
#include "steps.h"
#include "workspace.h"

namespace kernels {
namespace {

// Rotates the queries and keys of a token in place, and stores its keys and values in their slot.
void rotate_and_store(const Block& b, const Ring& ring, int64_t batch, float* q, float* k, const float* v) {
  const int64_t size = b.head_dim, bytes = size * float_bytes(ring.type);
  rotate(q, {b.heads * size, size, size}, batch, b.heads, 1, b.rotation, ring.position, q);
  rotate(k, {b.kv_heads * size, size, size}, batch, b.kv_heads, 1, b.rotation, ring.position, k);
  for (int64_t row = 0; row < batch * b.kv_heads; ++row) {
    const int64_t at = (row * ring.slots + ring.slot) * bytes;
    narrow(k + row * size, ring.type, size, static_cast<char*>(ring.keys) + at);
    narrow(v + row * size, ring.type, size, static_cast<char*>(ring.values) + at);
  }
}

}  // namespace

void run_block(const Block& b, const Ring& ring, const float* x, int64_t batch, float* out) {
  const int64_t size = b.head_dim, n_q = b.heads * size, n_kv = b.kv_heads * size, dim = inputs_of(b.q),
                hidden = outputs_of(b.gate);
  float* q = reinterpret_cast<float*>(
      workspace<Slot::block>(batch * (2 * n_q + 2 * n_kv + dim + hidden) * static_cast<int64_t>(sizeof(float))));
  float *k = q + batch * n_q, *v = k + batch * n_kv, *h = v + batch * n_kv, *sum = h + batch * n_q,
        *gated = sum + batch * dim;
  compute({{b.q, b.k, b.v}, x, batch, b.attention_norm, Products::EACH, nullptr, {q, k, v}});
  rotate_and_store(b, ring, batch, q, k, v);
  const int64_t head = ring.slots * size;
  attend_all({q,
              ring.keys,
              ring.values,
              h,
              ring.type,
              batch,
              b.heads,
              b.kv_heads,
              1,
              size,
              ring.seen - 1,
              0,
              0,
              {n_q, size, size},
              {b.kv_heads * head, head, size},
              {b.kv_heads * head, head, size},
              0,
              b.scale});
  compute({{b.o}, h, batch, {}, Products::ADD, x, {sum}});
  compute({{b.gate, b.up}, sum, batch, b.mlp_norm, Products::SWIGLU, nullptr, {gated}});
  compute({{b.down}, gated, batch, {}, Products::ADD, sum, {out}});
}

}  // namespace kernels
