// A transformer block, see block.h; model.py says the same in single steps.
#include "block.h"

#include <algorithm>

#include "../parts/scalars.h"
#include "attend.h"
#include "pool.h"
#include "steps.h"
#include "workspace.h"

namespace kernels {
namespace {

// Queries, keys and values [batch, tokens, heads, head_dim], and what attention makes of them.
struct Heads {
  int64_t batch, tokens;
  float *q, *k, *v, *out;
};

void rotate_in_place(const Block& b, const QueryScale& scale, int64_t position, int64_t heads, const Heads& x,
                     float* part) {
  const int64_t row = heads * b.head_dim, strides[] = {x.tokens * row, b.head_dim, row};
  rotate(part, strides, x.batch, heads, x.tokens, b.rotation, scale, position, part, strides);
}

// Puts the keys and values of the tokens [t, t + n) into their slots.
void store(const Block& b, const Ring& ring, const Heads& x, int64_t t, int64_t n) {
  const int64_t size = b.head_dim, bytes = size * float_bytes(ring.type);
  const auto one = [&](int64_t row) {
    const int64_t token = t + row % n, head = row / n % b.kv_heads, batch = row / n / b.kv_heads,
                  position = ring.position + token, slot = ring.slots > 0 ? position % ring.slots : position,
                  from = ((batch * x.tokens + token) * b.kv_heads + head) * size,
                  to = ((batch * b.kv_heads + head) * ring.rows + slot) * bytes;
    narrow(x.k + from, ring.type, size, static_cast<char*>(ring.keys) + to);
    narrow(x.v + from, ring.type, size, static_cast<char*>(ring.values) + to);
  };
  constexpr int64_t STEP = 64;
  const int64_t rows = x.batch * b.kv_heads * n;
  parallel((rows + STEP - 1) / STEP, [&](int64_t piece) {
    for (int64_t row = piece * STEP; row < std::min(rows, (piece + 1) * STEP); ++row) one(row);
  });
}

// Attention of the tokens [t, t + n) of `batch` rows from `first` on.
void attend_to(const Block& b, const Ring& ring, const Heads& x, int64_t first, int64_t batch, int64_t t, int64_t n) {
  const int64_t size = b.head_dim, n_q = b.heads * size, head = ring.rows * size, at = (first * x.tokens + t) * n_q,
                kv_at = first * b.kv_heads * head * float_bytes(ring.type);
  attend_all({x.q + at,
              static_cast<const char*>(ring.keys) + kv_at,
              static_cast<const char*>(ring.values) + kv_at,
              x.out + at,
              ring.type,
              batch,
              b.heads,
              b.kv_heads,
              n,
              size,
              ring.position + t,
              0,
              ring.slots,
              {x.tokens * n_q, size, n_q},
              {b.kv_heads * head, head, size},
              {b.kv_heads * head, head, size},
              ring.window,
              b.scale});
}

// As many tokens at a time as overwrite nothing that the first of them sees.
void store_and_attend(const Block& b, const Ring& ring, const Heads& x) {
  for (int64_t t = 0, n; t < x.tokens; t += n) {
    n = x.tokens - t;
    if (ring.slots > 0) n = std::min(n, std::max(ring.slots - ring.position - t, ring.slots - ring.window + 1));
    store(b, ring, x, t, n);
    if (n == x.tokens) return attend_to(b, ring, x, 0, x.batch, t, n);
    for (int64_t row = 0; row < x.batch; ++row) attend_to(b, ring, x, row, 1, t, n);
  }
}

}  // namespace

void run_block(const Block& b, const Ring& ring, const float* x, int64_t batch, int64_t tokens, float* out) {
  const int64_t n_q = b.heads * b.head_dim, n_kv = b.kv_heads * b.head_dim, dim = inputs_of(b.q),
                hidden = b.mixture ? 0 : outputs_of(b.mlp.gate), rows = batch * tokens;
  float* q = reinterpret_cast<float*>(
      workspace<Slot::block>(rows * (2 * n_q + 2 * n_kv + dim + hidden) * static_cast<int64_t>(sizeof(float))));
  float *k = q + rows * n_q, *v = k + rows * n_kv, *h = v + rows * n_kv, *sum = h + rows * n_q,
        *gated = sum + rows * dim;
  const Heads heads{batch, tokens, q, k, v, h};
  compute({{b.q, b.k, b.v}, x, rows, b.attention_norm, Products::EACH, nullptr, {q, k, v}});
  rotate_in_place(b, b.query_scale, ring.position, b.heads, heads, q);
  rotate_in_place(b, {}, ring.position, b.kv_heads, heads, k);
  store_and_attend(b, ring, heads);
  compute({{b.o}, h, rows, {}, Products::ADD, x, {sum}});
  if (b.mixture) return add_mixture(*b.mixture, b.mlp_norm, sum, rows, out);
  compute({{b.mlp.gate, b.mlp.up}, sum, rows, b.mlp_norm, Products::SWIGLU, nullptr, {gated}});
  compute({{b.mlp.down}, gated, rows, {}, Products::ADD, sum, {out}});
}

void run_model(const Model& model, const std::vector<Ring>& rings, const float* x, int64_t batch, int64_t tokens,
               bool head, float* out) {
  const int64_t rows = batch * tokens, dim = inputs_of(model.head);
  float* between =
      reinterpret_cast<float*>(workspace<Slot::model>(2 * rows * dim * static_cast<int64_t>(sizeof(float))));
  for (size_t i = 0; i < model.blocks.size(); ++i) {
    float* to = between + i % 2 * rows * dim;
    run_block(model.blocks[i], rings[i], x, batch, tokens, to);
    x = to;
  }
  if (head)
    compute({{model.head}, x, rows, model.norm, Products::EACH, nullptr, {out}});
  else
    rms_norm(x, model.norm, rows, dim, out);
}

}  // namespace kernels
