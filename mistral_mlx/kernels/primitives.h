// The kernels as lazy MLX operations; knows nothing of Python.
#pragma once
#include "mlx/array.h"

namespace kernels {

// x W^T in float32 for W packed in MLX's affine form; x is [..., n_in].
mlx::core::array quantized_matmul(const mlx::core::array& x, const mlx::core::array& weight, const mlx::core::array& scales,
                                  const mlx::core::array& biases, int group_size, int bits);

// x W^T in float32; W is [n_out, n_in] of float32, float16 or bfloat16.
mlx::core::array matmul(const mlx::core::array& x, const mlx::core::array& weight);

// Attention in float32, see Attention in kernels.h; window 0 has no end.
mlx::core::array attention(const mlx::core::array& q, const mlx::core::array& k, const mlx::core::array& v, float scale, int window);

mlx::core::array rms_norm(const mlx::core::array& x, const mlx::core::array& weight, float eps);
mlx::core::array rope(const mlx::core::array& x, double base, int offset);
mlx::core::array silu_times(const mlx::core::array& gate, const mlx::core::array& up);

}  // namespace kernels
