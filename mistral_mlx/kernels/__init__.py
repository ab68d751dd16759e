"""The one place that chooses how a step is computed: MLX's own operations, or what is faster on a CPU.

MLX's CPU backend is scalar and single-threaded on Linux, multiplies prompt rows one by one, and sums in the dtype of
the activations. So on the CPU activations are float32 (`activation_dtype`), and products go through the native kernels
(`native`, docs/kernels.md) or, where those were not built, through NumPy's BLAS (`cpu`). A step of the native kernels
is as large as the model allows: an operation of MLX costs microseconds, a small product no more.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from mistral_mlx.errors import counted

from . import native
from .codes import decoded as decoded
from .codes import encoded as encoded
from .codes import row_elements as row_elements
from .codes import turned as turned
from .dtypes import MLX_DTYPES
from .fallback import packing
from .fallback import products as cpu
from .ready import Layout as Layout
from .ready import ReadyBlock as ReadyBlock
from .ready import ReadyModel as ReadyModel
from .ready import Text as Text
from .ready import run_block as run_block
from .weights import Norm as Norm
from .weights import QueryScale as QueryScale
from .weights import Rotation as Rotation
from .weights import Weight as Weight

BANDWIDTH_BYTES = 1 << 29  # far more than the last cache of a laptop holds
BANDWIDTH_REPEATS = 5


Part = tuple[int, tuple[int, ...], mx.Dtype]  # of a file: first byte, shape, dtype


def on_cpu() -> bool:
    """Whether the default device is the CPU."""
    return bool(mx.default_device() == mx.Device(mx.cpu))


def uses_native() -> bool:
    """Whether the compiled kernels do the work: on the CPU, where they were built and fit it."""
    return native.available and on_cpu()


def maps_files() -> bool:
    """Whether weights can stay in their files: where native kernels read them, and no GPU ever will."""
    return uses_native() and not mx.is_available(mx.Device(mx.gpu))


def map_tensors(path: Path, parts: list[Part], *, all: bool = True) -> list[mx.array]:
    """Return arrays over parts of the file at `path`, which are read from it when they are used.

    With `all`, the whole file is read ahead in the background. Raises OSError, RuntimeError or ValueError if it cannot
    be opened or mapped, or a part lies behind its end.
    """
    with path.open("rb") as file:
        return native.ext.map_tensors(file.fileno(), parts, all)


def names() -> str:
    """Return what computes the products on the default device, for people to read."""
    if not on_cpu():
        return "mlx-metal" if mx.metal.is_available() else "mlx-cuda"
    if not native.available:
        return f"numpy (no native kernels: {native.missing})"
    count = native.ext.threads()
    return f"{native.ext.name()}, {counted(count, 'thread')}{', exact' if exact() else ''}"


def threads() -> int | None:
    """Return how many threads of ours compute; None where MLX, a GPU or BLAS decide it themselves."""
    return native.ext.threads() if uses_native() else None


def set_threads(n: int) -> bool:
    """Let `n` threads compute, 0 being one per fast core this process may use; False where we do not decide it.

    Raises RuntimeError if the system does not give so many.
    """
    if uses_native():
        native.ext.set_threads(n)
    return uses_native()


def exact() -> bool:
    """Whether products with packed weights round activations so finely that nothing is lost; see `set_exact`."""
    return not uses_native() or bool(native.ext.exact())


def set_exact(on: bool) -> None:
    """Round activations to 16 bits for products with packed weights, or to 8 bits after a rotation, the default.

    That is for the whole process, and for our kernels alone: other devices do not round. docs/kernels.md says what
    either costs. A cache that was filled in one way goes on in the other, but a later answer has other last bits.
    """
    if native.built:
        native.ext.set_exact(on)


@contextmanager
def exactly() -> Iterator[None]:
    """Compute as after ``set_exact(True)`` for a while."""
    before = native.built and native.ext.exact()
    set_exact(True)
    try:
        yield
    finally:
        set_exact(before)


def read_bandwidth() -> float | None:
    """Return the bytes per second that our threads together read from memory, the best of a few runs.

    None where nothing measures it: one thread of NumPy does not reach what the memory gives, and would flatter us.
    """
    return native.ext.read_bandwidth(BANDWIDTH_BYTES, BANDWIDTH_REPEATS) if uses_native() else None


def note() -> str | None:
    """Return a sentence for the user if products are slower than they could be."""
    if native.available or not on_cpu():
        return None
    advice = f"; {native.advice}" if native.advice else ""
    return f"running without the native CPU kernels, many times slower: {native.missing}{advice}"


def activation_dtype(stored: mx.Dtype) -> mx.Dtype:
    """Return the dtype of activations for weights (or scales) of dtype `stored`."""
    return mx.float32 if on_cpu() else stored


def cache_dtype(stored: mx.Dtype) -> mx.Dtype:
    """Return the dtype of cached keys and values for weights (or scales) of dtype `stored`.

    The native kernels widen 16 bits as they read them, and half precision is the finer form of those.
    """
    return mx.float16 if uses_native() and stored != mx.float32 else activation_dtype(stored)


def embedded(ids: mx.array, weight: Weight) -> mx.array:
    """Return rows of a weight ``[N, K]`` as float32 ``[..., K]``; of the native kernels alone, and not lazily."""
    return native.ext.embedded(ids, weight)


def products(x: mx.array, weights: Sequence[Weight], norm: Norm | None = None) -> list[mx.array]:
    """Return ``norm(x) @ W.T`` for each weight: ``[..., K]`` and ``[N, K]`` to ``[..., N]``."""
    if uses_native():
        return native.ext.products(x, weights, norm)
    x = x if norm is None else rms_norm(x, *norm)
    return [_product(x, weight) for weight in weights]


def add_product(residual: mx.array, x: mx.array, weight: Weight, rank: int | None = None) -> mx.array:
    """Return ``residual + x @ W.T``; where processes share the columns of W, `rank` is that of this one."""
    if rank is not None:
        return residual + over_ranks(products(x, [weight])[0], rank)
    if uses_native():
        return native.ext.add_product(residual, x, weight)
    return residual + _product(x, weight)


def over_ranks(share: mx.array, rank: int | None) -> mx.array:
    """Return the sum of what all processes that share a model have; without a `rank` there is one, and it has all."""
    return share if rank is None else mx.distributed.all_sum(share)


def swiglu(x: mx.array, gate: Weight, up: Weight, norm: Norm | None = None) -> mx.array:
    """Return ``silu(h @ gate.T) * (h @ up.T)`` of ``h = norm(x)``."""
    if uses_native():
        return native.ext.swiglu(x, gate, up, norm)
    return gated(*products(x, [gate, up], norm))


def gated(gate: mx.array, up: mx.array) -> mx.array:
    """Return ``silu(gate) * up``."""
    return _gated(gate, up) if on_cpu() else _fused_gated(gate, up)


def attention(
    q: mx.array,
    k: mx.array,
    v: mx.array,
    *,
    scale: float,
    window: int | None,
    position: int | None = None,
    ring: bool = False,
    sinks: int = 0,
) -> mx.array:
    """Return softmax(scale * q k^T, where visible) v, with keys and values shared by groups of query heads.

    q is ``[B, H, S, Dh]``, the result ``[B, S, H*Dh]``. The query at position p sees the keys of ``p - window + 1`` to
    p. k and v are ``[B, Hkv, T, Dh]``, the last S of them those of the queries; or, for one query of a window and
    `ring`, the key of position p lies in slot ``p % T``. The first query is at `position`, by default ``T - S``. The
    native kernels give a query the same bits in every call that names its position.

    Before these T keys come those of the first `sinks` positions: a query sees the ones that its window has left
    behind. k and v can be codes of 8 bits, int8 ``[B, Hkv, sinks + T, Dh + 4]``, of turned keys.
    """
    n_new, n_keys = q.shape[2], k.shape[2] - sinks
    if is_coded := k.dtype == mx.int8:
        q = turned(q)
    start = n_keys - n_new if position is None else position
    if uses_native():
        return native.ext.attention(q, k, v, scale=scale, window=window or 0, position=start, ring=ring, sinks=sinks)
    if is_coded:
        k, v = decoded(k, q.dtype), decoded(v, q.dtype)
    if sinks:
        assert window is not None
        mask: mx.array | str | None = visible_with_sinks(n_new, n_keys, window, start, sinks, ring=ring)
    elif ring:
        assert window is not None and n_new == 1
        mask = visible_slots(start, n_keys, window)
    else:
        is_causal = n_new > 1 and (window is None or n_keys <= window)  # by its name, MLX can skip what is not seen
        mask = "causal" if is_causal and not on_cpu() else visible(n_new, n_keys, window)
    if on_cpu():
        assert not isinstance(mask, str)
        h = cpu.attention(q, k, v, scale=scale, mask=mask)
    else:
        h = mx.fast.scaled_dot_product_attention(q, k, v, scale=scale, mask=mask)
    return h.transpose(0, 2, 1, 3).flatten(2)


def rms_norm(x: mx.array, weight: mx.array, eps: float) -> mx.array:
    """Return ``x / sqrt(mean(x^2) + eps) * weight`` over the last axis."""
    if uses_native():
        return native.ext.rms_norm(x, weight, eps)
    return mx.fast.rms_norm(x, weight, eps)


def rope(x: mx.array, rotation: Rotation, scale: QueryScale | None = None, *, offset: int) -> mx.array:
    """Return ``[B, H, S, Dh]`` with rotary positions from `offset` on, halves and not pairs.

    `scale` is that of queries by their position.
    """
    if uses_native():
        return native.ext.rope(x, rotation, scale, offset=offset)
    base = rotation.base
    # MLX divides positions by `freqs`. Where it computes plain ones itself it rounds differently, so it still does.
    periods = mx.array((1 / rotation.frequencies).astype(np.float32)) if base is None else None
    turned = x if rotation.factor == 1 else x * rotation.factor
    turned = mx.fast.rope(turned, x.shape[-1], traditional=False, base=base, scale=1.0, offset=offset, freqs=periods)
    end = offset + x.shape[2]
    if scale is None or end <= scale.original:
        return turned
    factors = scale.at(np.arange(offset, end)).astype(np.float32)
    return turned * mx.array(factors)[:, None].astype(x.dtype)  # [S, 1]


def quantize(
    rows: NDArray[np.uint8],
    stored: str,
    dtype: str,
    *,
    group_size: int,
    bits: int,
    mode: str = "affine",
    search: bool = False,
    importance: NDArray[np.float32] | None = None,
) -> packing.Quantized:
    """Return rows of bytes that are weights of dtype `stored` as MLX packs them, affine scales and biases of `dtype`.

    Dtypes are F32, F16 or BF16; weights are rounded to `dtype` first. On a CPU the bits are those of `mx.quantize`.
    With `search`, scales and biases make the sum of ``importance[k] * (w[k] - unpacked[k])^2`` as small as was found;
    `importance` is float32 ``[columns]``, finite and not negative, 1 if it is None. The error returned weighs nothing.
    """
    n_rows, columns = rows.shape[0], rows.shape[1] // MLX_DTYPES[stored].size
    if mode != "affine":
        return packing.quantize_floats(rows, stored, dtype, mode=mode)
    if not (native.built and on_cpu()):
        return packing.quantize(
            rows, stored, dtype, group_size=group_size, bits=bits, search=search, importance=importance
        )
    weight = np.empty((n_rows, columns * bits // 8), np.uint8)
    scales, biases = np.empty((2, n_rows, columns // group_size * MLX_DTYPES[dtype].size), np.uint8)
    loss = native.ext.quantize(
        rows,
        stored,
        dtype,
        group_size=group_size,
        bits=bits,
        weight=weight,
        scales=scales,
        biases=biases,
        search=search,
        importance=importance,
    )
    return packing.Quantized(weight, scales, biases, *loss)


def visible(n_new: int, n_keys: int, window: int | None) -> mx.array | None:
    """Return which of `n_keys` keys each of the last `n_new` positions sees, bool ``[S, T]``; None if all do."""
    if n_new == 1 and (window is None or n_keys <= window):
        return None
    distance = mx.arange(n_keys - n_new, n_keys)[:, None] - mx.arange(n_keys)[None, :]
    mask = distance >= 0
    return mask if window is None else mask & (distance < window)


def visible_slots(position: int, slots: int, window: int) -> mx.array:
    """Return which slots of a full ring the query at `position`, whose own key is stored, sees: bool ``[1, slots]``."""
    return (position - mx.arange(slots)[None, :]) % slots < window


def visible_with_sinks(n_new: int, n_keys: int, window: int, position: int, sinks: int, *, ring: bool) -> mx.array:
    """Return which of `sinks` first keys and of `n_keys` others each query sees, bool ``[S, sinks + T]``.

    The others are a full ring if `ring`. A query sees a sink there as soon as its window has left it behind.
    """
    behind = mx.arange(position, position + n_new)[:, None] - mx.arange(sinks)[None, :] >= window
    others = visible_slots(position, n_keys, window) if ring else visible(n_new, n_keys, window)
    return mx.concatenate([behind, mx.ones((n_new, n_keys), mx.bool_) if others is None else others], axis=1)


def _gated(gate: mx.array, up: mx.array) -> mx.array:
    return gate * mx.sigmoid(gate) * up


# One kernel instead of three on a GPU. On a CPU it would start g++ and load the result from a shared folder.
_fused_gated = mx.compile(_gated, shapeless=True)


def _product(x: mx.array, w: Weight) -> mx.array:
    if w.scales is None:
        return cpu.matmul(x, w.weight) if on_cpu() else x @ w.weight.T
    if on_cpu():
        assert w.biases is not None, w.mode
        return cpu.quantized_matmul(x, w.weight, w.scales, w.biases, group_size=w.group_size, bits=w.bits)
    return mx.quantized_matmul(
        x, w.weight, w.scales, w.biases, transpose=True, group_size=w.group_size, bits=w.bits, mode=w.mode
    )
