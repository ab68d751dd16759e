// A whole transformer block: what costs more to schedule than to compute goes into one operation.
#pragma once
#include "mixture.h"
#include "steps.h"

namespace kernels {

// The products of a block by the names of its layers.
struct Block {
  Norm attention_norm, mlp_norm;
  Matrix q, k, v, o;
  FeedForward mlp;                 // or, in its place:
  std::optional<Mixture> mixture;  // of experts
  int64_t heads, kv_heads, head_dim;
  Rotation rotation;
  QueryScale query_scale;
  float scale;
};

// Keys and values [batch, kv_heads, rows, head_dim] before `position`, to which new ones are added. Where there is no
// window, slots is 0 and position p lies in row p; else in row p % slots, see Attention in contract.h. There is a row
// for every position up to the last new one, or for every slot.
struct Ring {
  void *keys, *values;
  Float type;
  int64_t rows, position, window, slots;
};

// x [batch, tokens, dim] through the block, where the tokens of each batch row stand at `position` and after it, into
// out; x may not be out.
void run_block(const Block& block, const Ring& ring, const float* x, int64_t batch, int64_t tokens, float* out);

struct Model {
  std::vector<Block> blocks;
  Norm norm;
  Matrix head;
};

// The same through all blocks, a ring for each, and the last norm; with `head`, out gets the logits.
void run_model(const Model& model, const std::vector<Ring>& rings, const float* x, int64_t batch, int64_t tokens,
               bool head, float* out);

}  // namespace kernels
