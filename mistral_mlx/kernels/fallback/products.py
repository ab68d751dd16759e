"""Products on the CPU with NumPy's BLAS, in float32; see `mistral_mlx.kernels`.

Measured on 2 cores with mlx 0.32.4: [512, 576] x [1536, 576]^T takes 231 ms in MLX and 2.9 ms here. Reading an MLX
array from NumPy evaluates it but does not copy it.
"""

from collections.abc import Callable

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

# Unpacking a weight takes as long as MLX's quantized product for about four rows (2.4 ns against 0.6 ns per row).
MIN_BLAS_ROWS = 6
BLOCK_ELEMENTS = 1 << 24  # weights unpacked at a time: 64 MB
SCORE_ELEMENTS = 1 << 24  # attention scores held at a time: 64 MB


def matmul(x: mx.array, weight: mx.array) -> mx.array:
    """Return ``x @ weight.T``; weights that are not float32 are widened a block at a time."""
    return _by_blocks(x, weight.shape[0], lambda start, stop: weight[start:stop])


def quantized_matmul(
    x: mx.array, weight: mx.array, scales: mx.array, biases: mx.array, *, group_size: int, bits: int
) -> mx.array:
    """Return ``x @ W.T`` for the quantized matrix W."""
    if x.size // x.shape[-1] < MIN_BLAS_ROWS:
        return mx.quantized_matmul(x, weight, scales, biases, transpose=True, group_size=group_size, bits=bits)

    def unpacked(start: int, stop: int) -> mx.array:
        # Scales in float16 would round every unpacked weight to float16.
        scale, bias = scales[start:stop].astype(mx.float32), biases[start:stop].astype(mx.float32)
        return mx.dequantize(weight[start:stop], scale, bias, group_size=group_size, bits=bits)

    return _by_blocks(x, weight.shape[0], unpacked)


def attention(q: mx.array, k: mx.array, v: mx.array, *, scale: float, mask: mx.array | None) -> mx.array:
    """Return attention (see `kernels.attention`), one tile of queries at a time."""
    batch, n_heads, n_new, head_dim = q.shape
    n_kv_heads, n_keys = k.shape[1], k.shape[2]
    groups = _floats(q).reshape(batch, n_kv_heads, n_heads // n_kv_heads, n_new, head_dim)
    keys, values = _floats(k).swapaxes(-1, -2), _floats(v)
    visible = None if mask is None else np.asarray(mask)
    out = np.empty(groups.shape, np.float32)
    step = max(1, SCORE_ELEMENTS // (batch * n_heads * n_keys))
    for i in range(0, n_new, step):
        part = slice(i, i + step)
        tile = _attend(
            groups[:, :, :, part] * np.float32(scale), keys, values, None if visible is None else visible[part]
        )
        out[:, :, :, part] = tile
    return mx.array(out.reshape(q.shape))


def _by_blocks(x: mx.array, n_out: int, weights: Callable[[int, int], mx.array]) -> mx.array:
    """Return ``x @ W.T``; `weights` gives a few rows of W at a time, to bound float32 copies."""
    n_in = x.shape[-1]
    rows = _floats(x).reshape(-1, n_in)
    out = np.empty((len(rows), n_out), np.float32)
    step = max(1, BLOCK_ELEMENTS // n_in)
    for i in range(0, n_out, step):
        out[:, i : i + step] = rows @ _floats(weights(i, i + step)).T
    return mx.array(out.reshape(*x.shape[:-1], n_out))


def _attend(q: Floats, keys: Floats, values: Floats, visible: NDArray[np.bool_] | None) -> Floats:
    """Return attention of queries ``[B, Hkv, R, S, Dh]``; R query heads share each key head."""
    folded = (*q.shape[:2], q.shape[2] * q.shape[3], q.shape[4])  # one product per key head: [B, Hkv, R*S, Dh]
    scores = (q.reshape(folded) @ keys).reshape(*q.shape[:4], -1)  # [B, Hkv, R, S, T]
    if visible is not None:
        scores[..., ~visible] = -np.inf
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    return (scores.reshape(*folded[:3], -1) @ values).reshape(q.shape)


def _floats(x: mx.array) -> Floats:
    return np.asarray(x if x.dtype == mx.float32 else x.astype(mx.float32))
