// A transformer block, see block.h; model.py says the same in single steps.
#include "block.h"

#include <algorithm>
#include <cstring>

#include "../parts/scalars.h"
#include "attend.h"
#include "codes.h"
#include "pool.h"
#include "steps.h"
#include "workspace.h"

namespace kernels {
namespace {

// Queries, keys and values [batch, tokens, heads, head_dim] of a sequence, and what attention makes of them.
struct Heads {
  float *q, *k, *v, *out;
};

// The positions of all rows of a pass.
std::vector<int64_t> positions_of(const Sequences& sequences) {
  std::vector<int64_t> positions;
  for (const Sequence& s : sequences)
    for (int64_t row = 0; row < s.rows(); ++row) positions.push_back(s.ring.position + row % s.tokens);
  return positions;
}

void rotate_in_place(const Block& b, const QueryScale& scale, const std::vector<int64_t>& positions, int64_t heads,
                     float* part) {
  const int64_t strides[] = {0, b.head_dim, heads * b.head_dim};
  rotate(part, strides, 1, heads, positions, b.rotation, scale, part, strides);
}

// Turns the queries of sequences whose keys are turned when they are stored.
void turn_queries(const Block& b, const Sequences& sequences, float* q) {
  for (const Sequence& s : sequences) {
    const int64_t n = s.rows();
    if (s.ring.type == Float::q8)
      parallel(n, [&](int64_t row) {
        for (int64_t head = 0; head < b.heads; ++head) turn_head(q + (row * b.heads + head) * b.head_dim, b.head_dim);
      });
    q += n * b.heads * b.head_dim;
  }
}

int64_t row_of(const Ring& ring, int64_t position) {
  return ring.sinks + (ring.slots > 0 ? position % ring.slots : position);
}

// Puts the keys and values of the tokens [t, t + n) into their slots. Keys of q8 are turned.
void store(const Block& b, const Sequence& s, const Heads& x, int64_t t, int64_t n) {
  const Ring& ring = s.ring;
  const int64_t size = b.head_dim, bytes = row_elements(size, ring.type) * float_bytes(ring.type);
  const auto put = [&](const float* from, void* rows, int64_t position) {
    char *first = static_cast<char*>(rows), *to = first + row_of(ring, position) * bytes;
    if (ring.type == Float::q8)
      encode(from, size, to);
    else
      narrow(from, ring.type, size, to);
    if (position < ring.sinks) std::memcpy(first + position * bytes, to, bytes);
  };
  const auto one = [&](int64_t row) {
    const int64_t token = t + row % n, head = row / n % b.kv_heads, batch = row / n / b.kv_heads,
                  from = ((batch * s.tokens + token) * b.kv_heads + head) * size,
                  to = (batch * b.kv_heads + head) * ring.rows * bytes;
    if (ring.type == Float::q8) turn_head(x.k + from, size);
    put(x.k + from, static_cast<char*>(ring.keys) + to, ring.position + token);
    put(x.v + from, static_cast<char*>(ring.values) + to, ring.position + token);
  };
  constexpr int64_t STEP = 64;
  const int64_t rows = s.batch * b.kv_heads * n;
  parallel((rows + STEP - 1) / STEP, [&](int64_t piece) {
    for (int64_t row = piece * STEP; row < std::min(rows, (piece + 1) * STEP); ++row) one(row);
  });
}

// Attention of the tokens [t, t + n) of all rows of the batch.
Attention attention_of(const Block& b, const Sequence& s, const Heads& x, int64_t t, int64_t n) {
  const Ring& ring = s.ring;
  const int64_t size = b.head_dim, n_q = b.heads * size, row = row_elements(size, ring.type), head = ring.rows * row;
  return {x.q + t * n_q,
          ring.keys,
          ring.values,
          x.out + t * n_q,
          ring.type,
          s.batch,
          b.heads,
          b.kv_heads,
          n,
          size,
          ring.position + t,
          0,
          ring.slots,
          {s.tokens * n_q, size, n_q},
          {b.kv_heads * head, head, row},
          {b.kv_heads * head, head, row},
          s.tokens * n_q,
          ring.window,
          b.scale,
          ring.sinks};
}

// How many of the tokens from t on overwrite nothing that the first of them sees.
int64_t n_at_once(const Sequence& s, int64_t t) {
  const Ring& ring = s.ring;
  if (ring.slots == 0) return s.tokens - t;
  return std::min(s.tokens - t, std::max(ring.slots - ring.position - t, ring.slots - ring.window + 1));
}

// Of every sequence as many tokens at a time as it can take.
void store_and_attend(const Block& b, const Sequences& sequences, const Heads& all) {
  std::vector<int64_t> done(sequences.size());
  for (std::vector<Attention> now;; now.clear()) {
    Heads x = all;
    for (size_t i = 0; i < sequences.size(); ++i) {
      const Sequence& s = sequences[i];
      if (done[i] < s.tokens) {
        const int64_t n = n_at_once(s, done[i]);
        store(b, s, x, done[i], n);
        now.push_back(attention_of(b, s, x, done[i], n));
        done[i] += n;
      }
      const int64_t n_q = s.rows() * b.heads * b.head_dim, n_kv = s.rows() * b.kv_heads * b.head_dim;
      x = {x.q + n_q, x.k + n_kv, x.v + n_kv, x.out + n_q};
    }
    if (now.empty()) return;
    attend_all(now);
  }
}

// out = x + the sum of out over all shares, where there are any.
void add_shares(const Block& b, const float* x, int64_t n, float* out) {
  if (!b.sum) return;
  b.sum(out, n);
  for (int64_t i = 0; i < n; ++i) out[i] += x[i];
}

// out = x + h W^T, the residual stream after one half of a block.
void add_half(const Block& b, const Matrix& w, const float* h, const float* x, int64_t rows, float* out) {
  compute({{w}, h, rows, {}, b.sum ? Products::EACH : Products::ADD, x, {out}});
  add_shares(b, x, rows * outputs_of(w), out);
}

}  // namespace

void run_block(const Block& b, const Sequences& sequences, const float* x, float* out) {
  const std::vector<int64_t> positions = positions_of(sequences);
  const int64_t n_q = b.heads * b.head_dim, n_kv = b.kv_heads * b.head_dim, dim = inputs_of(b.q),
                hidden = b.mixture ? 0 : outputs_of(b.mlp.gate), rows = static_cast<int64_t>(positions.size());
  float* q = reinterpret_cast<float*>(
      workspace<Slot::block>(rows * (2 * n_q + 2 * n_kv + dim + hidden) * static_cast<int64_t>(sizeof(float))));
  float *k = q + rows * n_q, *v = k + rows * n_kv, *h = v + rows * n_kv, *sum = h + rows * n_q,
        *gated = sum + rows * dim;
  compute({{b.q, b.k, b.v}, x, rows, b.attention_norm, Products::EACH, nullptr, {q, k, v}});
  rotate_in_place(b, b.query_scale, positions, b.heads, q);
  rotate_in_place(b, {}, positions, b.kv_heads, k);
  turn_queries(b, sequences, q);
  store_and_attend(b, sequences, {q, k, v, h});
  add_half(b, b.o, h, x, rows, sum);
  if (b.mixture) {
    add_mixture(*b.mixture, b.mlp_norm, sum, rows, !b.sum, out);
    return add_shares(b, sum, rows * dim, out);
  }
  compute({{b.mlp.gate, b.mlp.up}, sum, rows, b.mlp_norm, Products::SWIGLU, nullptr, {gated}});
  add_half(b, b.mlp.down, gated, sum, rows, out);
}

void run_model(const Model& model, const std::vector<Sequences>& blocks, const float* x, bool head, float* out) {
  int64_t rows = 0;
  for (const Sequence& s : blocks[0]) rows += s.rows();
  const int64_t dim = inputs_of(model.blocks[0].q);
  float* between =
      reinterpret_cast<float*>(workspace<Slot::model>(2 * rows * dim * static_cast<int64_t>(sizeof(float))));
  for (size_t i = 0; i < model.blocks.size(); ++i) {
    float* to = !model.norm && i + 1 == model.blocks.size() ? out : between + i % 2 * rows * dim;
    run_block(model.blocks[i], blocks[i], x, to);
    x = to;
  }
  if (head)
    compute({{*model.head}, x, rows, model.norm, Products::EACH, nullptr, {out}});
  else if (model.norm)
    rms_norm(x, *model.norm, rows, dim, out);
}

}  // namespace kernels
