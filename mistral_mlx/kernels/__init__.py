"""The one place that chooses how a product is computed: MLX's own operations, or what is faster on a CPU.

MLX's CPU backend is scalar and single-threaded on Linux, multiplies prompt rows one by one, and sums in the dtype of
the activations. So on the CPU activations are float32 (`activation_dtype`), and products of several rows go through
NumPy's BLAS (`kernels.cpu`).
"""

import mlx.core as mx

from . import cpu


def on_cpu() -> bool:
    """Whether the default device is the CPU."""
    return bool(mx.default_device() == mx.Device(mx.cpu))


def names() -> str:
    """Return what computes the products on the default device, for people to read."""
    return "numpy-blas + mlx-cpu" if on_cpu() else "mlx-metal"


def activation_dtype(stored: mx.Dtype) -> mx.Dtype:
    """Return the dtype of activations for weights (or scales) of dtype `stored`."""
    return mx.float32 if on_cpu() else stored


def matmul(x: mx.array, weight: mx.array) -> mx.array:
    """Return ``x @ weight.T``: ``[..., K]`` and ``[N, K]`` to ``[..., N]``, in the dtype of `x`."""
    return cpu.matmul(x, weight) if on_cpu() else x @ weight.T


def quantized_matmul(
    x: mx.array, weight: mx.array, scales: mx.array, biases: mx.array, *, group_size: int, bits: int
) -> mx.array:
    """Return ``x @ W.T`` for W packed in MLX's affine form: ``[..., K]`` and packed ``[N, K]`` to ``[..., N]``."""
    if on_cpu():
        return cpu.quantized_matmul(x, weight, scales, biases, group_size=group_size, bits=bits)
    return mx.quantized_matmul(x, weight, scales, biases, transpose=True, group_size=group_size, bits=bits)


def attention(q: mx.array, k: mx.array, v: mx.array, *, scale: float, mask: mx.array | None) -> mx.array:
    """Return softmax(scale * q k^T, where `mask`) v, with keys and values shared by groups of query heads.

    q is ``[B, H, S, Dh]``, k and v are ``[B, Hkv, T, Dh]``, mask is bool ``[S, T]``; the result is shaped as q.
    """
    if on_cpu():
        return cpu.attention(q, k, v, scale=scale, mask=mask)
    return mx.fast.scaled_dot_product_attention(q, k, v, scale=scale, mask=mask)
