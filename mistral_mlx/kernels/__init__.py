"""The one place that chooses how a product is computed: MLX's own operations, or what is faster on a CPU.

MLX's CPU backend is scalar and single-threaded on Linux, multiplies prompt rows one by one, and sums in the dtype of
the activations. So on the CPU activations are float32 (`activation_dtype`), and products go through the native kernels
(`native`, docs/kernels.md) or, where those were not built, through NumPy's BLAS (`cpu`).
"""

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from . import cpu, native, packing

ITEM_NBYTES = {"F16": 2, "BF16": 2, "F32": 4}


def on_cpu() -> bool:
    """Whether the default device is the CPU."""
    return bool(mx.default_device() == mx.Device(mx.cpu))


def uses_native() -> bool:
    """Whether the compiled kernels do the work: on the CPU, where they were built and fit it."""
    return native.available and on_cpu()


def names() -> str:
    """Return what computes the products on the default device, for people to read."""
    if not on_cpu():
        return "mlx-metal"
    if not native.available:
        return f"numpy (no native kernels: {native.missing})"
    count = native.ext.threads()
    return f"{native.ext.name()}, {count} thread{'s'[: count > 1]}"


def note() -> str | None:
    """Return a sentence for the user if products are slower than they could be."""
    if native.available or not on_cpu():
        return None
    return f"running without the native CPU kernels, many times slower: {native.missing}"


def activation_dtype(stored: mx.Dtype) -> mx.Dtype:
    """Return the dtype of activations for weights (or scales) of dtype `stored`."""
    return mx.float32 if on_cpu() else stored


def matmul(x: mx.array, weight: mx.array) -> mx.array:
    """Return ``x @ weight.T``: ``[..., K]`` and ``[N, K]`` to ``[..., N]``, in the dtype of `x`."""
    if not on_cpu():
        return x @ weight.T
    return native.ext.matmul(x, weight) if native.available else cpu.matmul(x, weight)


def quantized_matmul(
    x: mx.array, weight: mx.array, scales: mx.array, biases: mx.array, *, group_size: int, bits: int
) -> mx.array:
    """Return ``x @ W.T`` for W packed in MLX's affine form: ``[..., K]`` and packed ``[N, K]`` to ``[..., N]``."""
    if on_cpu():
        product = native.ext.quantized_matmul if native.available else cpu.quantized_matmul
        return product(x, weight, scales, biases, group_size=group_size, bits=bits)
    return mx.quantized_matmul(x, weight, scales, biases, transpose=True, group_size=group_size, bits=bits)


def attention(q: mx.array, k: mx.array, v: mx.array, *, scale: float, window: int | None) -> mx.array:
    """Return softmax(scale * q k^T, where visible) v, with keys and values shared by groups of query heads.

    q is ``[B, H, S, Dh]``, k and v are ``[B, Hkv, T, Dh]``, the last S keys those of the queries; the result is shaped
    as q. A query sees key j if ``0 <= p - j < window``, where p is the index of its own key.
    """
    if uses_native():
        return native.ext.attention(q, k, v, scale=scale, window=window or 0)
    n_new, n_keys = q.shape[2], k.shape[2]
    if on_cpu():
        return cpu.attention(q, k, v, scale=scale, mask=visible(n_new, n_keys, window))
    is_causal = n_new > 1 and (window is None or n_keys <= window)  # by its name, MLX can skip what is not seen
    mask = "causal" if is_causal else visible(n_new, n_keys, window)
    return mx.fast.scaled_dot_product_attention(q, k, v, scale=scale, mask=mask)


def rms_norm(x: mx.array, weight: mx.array, eps: float) -> mx.array:
    """Return ``x / sqrt(mean(x^2) + eps) * weight`` over the last axis."""
    if uses_native():
        return native.ext.rms_norm(x, weight, eps)
    return mx.fast.rms_norm(x, weight, eps)


def rope(x: mx.array, *, base: float, offset: int) -> mx.array:
    """Return ``[B, H, S, Dh]`` with rotary positions from `offset` on, halves and not pairs."""
    if uses_native():
        return native.ext.rope(x, base=base, offset=offset)
    return mx.fast.rope(x, x.shape[-1], traditional=False, base=base, scale=1.0, offset=offset)


def silu_times(gate: mx.array, up: mx.array) -> mx.array:
    """Return ``silu(gate) * up``."""
    if uses_native():
        return native.ext.silu_times(gate, up)
    # nn.silu is compiled, which on a CPU would start g++ and load its result from a shared folder.
    return gate * mx.sigmoid(gate) * up


def quantize(rows: NDArray[np.uint8], stored: str, dtype: str, *, group_size: int, bits: int) -> packing.Quantized:
    """Return rows of bytes that are weights of dtype `stored` in MLX's affine form, scales and biases of `dtype`.

    Dtypes are F32, F16 or BF16; weights are rounded to `dtype` first. On a CPU the bits are those of `mx.quantize`.
    """
    if not (native.built and on_cpu()):
        return packing.quantize(rows, stored, dtype, group_size=group_size, bits=bits)
    n_rows, columns = rows.shape[0], rows.shape[1] // ITEM_NBYTES[stored]
    weight = np.empty((n_rows, columns * bits // 8), np.uint8)
    scales, biases = np.empty((2, n_rows, columns // group_size * ITEM_NBYTES[dtype]), np.uint8)
    loss = native.ext.quantize(
        rows, stored, dtype, group_size=group_size, bits=bits, weight=weight, scales=scales, biases=biases
    )
    return packing.Quantized(weight, scales, biases, *loss)


def visible(n_new: int, n_keys: int, window: int | None) -> mx.array | None:
    """Return which of `n_keys` keys each of the last `n_new` positions sees, bool ``[S, T]``; None if all do."""
    if n_new == 1 and (window is None or n_keys <= window):
        return None
    distance = mx.arange(n_keys - n_new, n_keys)[:, None] - mx.arange(n_keys)[None, :]
    mask = distance >= 0
    return mask if window is None else mask & (distance < window)
