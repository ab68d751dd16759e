// The kernels as lazy MLX operations; knows nothing of Python. All results are float32.
#pragma once
#include <optional>
#include <utility>
#include <vector>

#include <mlx/array.h>
#include "../run/steps.h"

namespace kernels {

// A weight [n_out, n_in]: plain (float32, float16 or bfloat16), or packed in MLX's affine form if it has scales.
struct Weight {
  mlx::core::array weight;
  std::optional<mlx::core::array> scales, biases;
  int group_size, bits;
};
using NormWeight = std::optional<std::pair<mlx::core::array, float>>;  // and eps

// x W^T for each weight, x [..., n_in] normalized before where `norm` says so; see Products.
std::vector<mlx::core::array> products(const mlx::core::array& x, const std::vector<Weight>& weights,
                                       const NormWeight& norm, Products::Then then,
                                       const std::optional<mlx::core::array>& residual);

// Attention, see Attention in contract.h; window 0 has no end. The first query stands at `position`, and the last keys
// are those of the queries; or `ring` says that the key of position p lies in slot p % slots. Keys of `sinks` lie
// before the others. Rows of int8 are q8. The result is [batch, queries, heads * head_dim].
mlx::core::array attention(const mlx::core::array& q, const mlx::core::array& k, const mlx::core::array& v, float scale,
                           int window, int position, bool ring, int sinks);

mlx::core::array rms_norm(const mlx::core::array& x, const mlx::core::array& weight, float eps);
mlx::core::array rope(const mlx::core::array& x, const Rotation& rotation, const QueryScale& scale, int offset);

// Rows of a weight [n_rows, dim] as float32, ids [...] to [..., dim], at once. Throws std::out_of_range.
mlx::core::array embedded(const mlx::core::array& ids, const Weight& weight);

}  // namespace kernels
