// Transformer blocks, and all of a model, as one lazy MLX operation.
#pragma once
#include "../run/block.h"
#include "primitives.h"

namespace kernels {

// A transformer block for new tokens of each batch row, see Ring in block.h: x is [batch, tokens, dim], keys and values
// are [batch, kv_heads, rows, head_dim]. Returns the result and the two buffers, written in place where nobody else
// holds them. The weights are those of q, k, v, o, gate, up and down; the norms stand before q and before gate.
std::vector<mlx::core::array> run_block(const mlx::core::array& x, const mlx::core::array& keys,
                                        const mlx::core::array& values, const std::vector<Weight>& weights,
                                        const std::vector<NormWeight>& norms, const Rotation& rotation, int position,
                                        int window, int slots, float scale);

struct BlockWeights {
  std::vector<Weight> weights;    // of q, k, v, o, gate, up and down
  std::vector<NormWeight> norms;  // before q and before gate
  Rotation rotation;
  float scale;
  int kv_heads;
};

// All blocks of a model, its last norm and its head, made ready once for many calls.
class ReadyModel {
 public:
  ReadyModel(const std::vector<BlockWeights>& blocks, const NormWeight& norm, const Weight& head);

  // Whether these are the arrays that it was made of: of each block the weights with their scales and biases, then the
  // norms; then the last norm and the head.
  bool holds(const std::vector<const mlx::core::array*>& arrays) const;

  // x [batch, tokens, dim] through all of it: the logits [batch, tokens, n_out], or without the head the normalized x;
  // then all keys and all values, as run_block returns them. Windows and slots are those of run_block, for each block.
  std::vector<mlx::core::array> run(const mlx::core::array& x, const std::vector<mlx::core::array>& keys,
                                    const std::vector<mlx::core::array>& values, int position,
                                    const std::vector<int>& windows, const std::vector<int>& slots, bool head) const;

 private:
  struct State;
  std::shared_ptr<const State> state_;
};

}  // namespace kernels
