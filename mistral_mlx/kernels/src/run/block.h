// A whole transformer block for one new token: what costs more to schedule than to compute goes into one operation.
#pragma once
#include "steps.h"

namespace kernels {

struct Block {
  Norm attention_norm, mlp_norm;
  Matrix q, k, v, o, gate, up, down;  // the products of a block by the names of its layers
  int64_t heads, kv_heads, head_dim;
  Rotation rotation;
  float scale;
};

// Keys and values [batch, kv_heads, slots, head_dim], written here in slot `slot`; the first `seen` slots are visible.
struct Ring {
  void *keys, *values;
  Float type;
  int64_t slots, slot, seen, position;
};

// x [batch, dim] through the block, where x is one token of each batch row at `position`, into out; x may not be out.
void run_block(const Block& block, const Ring& ring, const float* x, int64_t batch, float* out);

}  // namespace kernels
