// Transformer blocks, and all of a model, as one lazy MLX operation.
#pragma once
#include "../run/block.h"
#include "primitives.h"

namespace kernels {

struct BlockWeights {
  // Of q, k, v, o, gate, up and down; of a mixture q, k, v, o, router, and gate, up and down of all experts.
  std::vector<Weight> weights;
  std::vector<NormWeight> norms;  // before q and before gate
  Rotation rotation;
  QueryScale query_scale;
  float scale;
  int kv_heads;
  int experts_used;         // by a token; 0: it is no mixture
  std::optional<int> rank;  // among the processes that share the block; nothing: it is whole
};

// Of a ring, see Ring in block.h; the window and the slots are 0 where there is none.
struct Layout {
  int window, slots, sinks;
};

// Weights made ready once for many calls: whole, and with `copy` copied as the kernels read them fastest.
class Ready {
 public:
  // Whether these are the arrays that it was made of, in the order given.
  bool holds(const std::vector<const mlx::core::array*>& arrays) const;

 protected:
  std::vector<mlx::core::array> originals_;
};

// A transformer block made ready. Its arrays are the weights with their scales and biases, then the norms.
class ReadyBlock : public Ready {
 public:
  ReadyBlock(const BlockWeights& weights, bool copy);

  // New tokens of each batch row through the block, see Ring in block.h: x is [batch, tokens, dim], keys and values are
  // [batch, kv_heads, rows, head_dim]. Returns the result and the two buffers, written in place where nobody else holds
  // them.
  std::vector<mlx::core::array> run(const mlx::core::array& x, const mlx::core::array& keys,
                                    const mlx::core::array& values, int position, const Layout& layout) const;

 private:
  friend class ReadyModel;
  struct State;
  std::shared_ptr<const State> state_;
};

// New tokens that go on from keys and values of each block, see ReadyBlock::run. Where somebody else holds one of
// these, it becomes a copy before it is written.
struct Text {
  std::vector<mlx::core::array*> keys, values;
  int position, tokens;
};

// All blocks of a model, its last norm and its head made ready; or blocks that are a part of one, without norm and
// head. Its arrays are those of the blocks, then the last norm and the head.
class ReadyModel : public Ready {
 public:
  ReadyModel(const std::vector<const ReadyBlock*>& blocks, const NormWeight& norm, const std::optional<Weight>& head,
             bool copy);

  // x [batch, tokens, dim] through all of it, at once and not as an operation: a small model's token costs no more than
  // to schedule one. Several texts with a batch of 1 share a pass, the tokens of the first before those of the second.
  // Returns the logits [batch, tokens, n_out], or without the head the normalized x, or without a norm just x.
  mlx::core::array run(const mlx::core::array& x, const std::vector<Text>& texts, const std::vector<Layout>& layouts,
                       bool head) const;

 private:
  struct State;
  std::shared_ptr<const State> state_;
};

}  // namespace kernels
