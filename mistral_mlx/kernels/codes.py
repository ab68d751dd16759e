"""Keys and values as 8-bit codes, in operations of MLX: ``Dh`` codes and the 4 bytes of a float32 scale, int8.

`run/codes.h` of the native kernels says why keys are turned, and stores the same; `encoded` is for every other device.
"""

import mlx.core as mx

LIMIT = 127
TINY = 1e-30  # one over less is not finite; such a key or value is 0
SCALE_BYTES = 4


def row_elements(head_dim: int, kv_bits: int) -> int:
    """Return the elements of a key or value of `head_dim` elements as a cache of `kv_bits` holds it."""
    return head_dim + SCALE_BYTES if kv_bits == 8 else head_dim


def turned(x: mx.array) -> mx.array:
    """Return ``[..., Dh]`` after a Walsh-Hadamard transform that keeps lengths; queries and keys keep their scores."""
    points = x.shape[-1] & -x.shape[-1]
    return mx.hadamard_transform(x.reshape(*x.shape[:-1], -1, points), points**-0.5).reshape(x.shape)


def encoded(x: mx.array) -> mx.array:
    """Return the codes of ``[..., Dh]`` and their scales, int8 ``[..., Dh + 4]``; not finite becomes a scale of NaN."""
    x = x.astype(mx.float32)
    largest = mx.max(mx.abs(x), axis=-1, keepdims=True)
    rounded = mx.where(mx.isfinite(largest) & (largest > TINY), mx.round(x * (LIMIT / largest)), 0)
    scales = mx.where(mx.isfinite(largest), mx.where(largest > TINY, largest / LIMIT, 0), mx.nan)
    return mx.concatenate([rounded.astype(mx.int8), scales.view(mx.int8)], axis=-1)


def decoded(codes: mx.array, dtype: mx.Dtype) -> mx.array:
    """Return what `encoded` rounded, ``[..., Dh]`` in `dtype`."""
    scales = mx.contiguous(codes[..., -SCALE_BYTES:]).view(mx.float32)
    return (codes[..., :-SCALE_BYTES] * scales).astype(dtype)
