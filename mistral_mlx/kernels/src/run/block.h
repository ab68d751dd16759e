// A whole transformer block: what costs more to schedule than to compute goes into one operation.
#pragma once
#include <functional>

#include "mixture.h"
#include "steps.h"

namespace kernels {

// Puts in the place of `n` floats their sum over the processes that share a model.
using Sum = std::function<void(float* data, int64_t n)>;

// The products of a block by the names of its layers. Of a share of a block, heads and hidden units are those of the
// share; what its two halves add to the residual stream is summed over all shares before.
struct Block {
  Norm attention_norm, mlp_norm;
  Matrix q, k, v, o;
  FeedForward mlp;                 // or, in its place:
  std::optional<Mixture> mixture;  // of experts
  int64_t heads, kv_heads, head_dim;
  Rotation rotation;
  QueryScale query_scale;
  float scale;
  Sum sum;  // empty: the block is whole
};

// Keys and values [batch, kv_heads, rows, head_dim] before `position`, to which new ones are added. Where there is no
// window, slots is 0 and position p lies in row p; else in row p % slots, see Attention in contract.h. There is a row
// for every position up to the last new one, or for every slot. Before all these lie the rows of the sinks.
struct Ring {
  void *keys, *values;
  Float type;
  int64_t rows, position, window, slots, sinks;
};

// Rows of a pass that go on from one ring: `tokens` for each row of its batch, at `position` and after it.
struct Sequence {
  Ring ring;
  int64_t batch, tokens;

  int64_t rows() const { return batch * tokens; }
};
using Sequences = std::vector<Sequence>;

// x [rows, dim] through the block into out, where the rows of the first sequence come first; x may not be out.
void run_block(const Block& block, const Sequences& sequences, const float* x, float* out);

struct Model {
  std::vector<Block> blocks;
  std::optional<Norm> norm;    // nothing: the blocks are a part of a model
  std::optional<Matrix> head;  // only with a norm
};

// The same through all blocks, each with its rings of the same sequences, and the last norm, if there is one; with
// `head`, out gets the logits.
void run_model(const Model& model, const std::vector<Sequences>& blocks, const float* x, bool head, float* out);

}  // namespace kernels
