"""A mixture of experts by MLX's own operations on stacked weights: how a GPU computes it.

The native kernels have one of their own (run/mixture.h). Letters in shapes: k experts are used by a token.
"""

import mlx.core as mx

from mistral_mlx import kernels

from .weights import Weight

SORTED_TOKENS = 32  # so many and more are sorted by expert, so that its weight is read once for all of them


def gathered(h: mx.array, chosen: mx.array, shares: mx.array, gate: Weight, up: Weight, down: Weight) -> mx.array:
    """Return the sum of ``share * down(silu(gate h) * up h)`` over the experts of each token, ``[B, S, D]``.

    h is ``[B, S, D]``, chosen and shares are ``[B, S, k]``, the weights ``[experts, N, K]``.
    """
    n_used = chosen.shape[-1]
    rows, ids = h.reshape(-1, 1, h.shape[-1]), chosen.flatten()  # [B*S, 1, D], [B*S*k]
    is_sorted = rows.shape[0] >= SORTED_TOKENS
    order = mx.argsort(ids) if is_sorted else mx.arange(ids.size)
    rows, ids = rows[order // n_used], ids[order]
    gated = kernels.gated(_product(rows, ids, gate, is_sorted), _product(rows, ids, up, is_sorted))
    out = _product(gated, ids, down, is_sorted)[:, 0]  # [B*S*k, D]
    if is_sorted:
        out = out[mx.argsort(order)]
    return (out.reshape(*chosen.shape, -1) * shares[..., None]).sum(axis=-2)


def _product(rows: mx.array, ids: mx.array, w: Weight, is_sorted: bool) -> mx.array:
    """Return ``[n, 1, N]`` of ``[n, 1, K]`` rows and the experts ``[n]`` that they use."""
    if w.scales is None:
        return mx.gather_mm(rows, w.weight.swapaxes(-1, -2), rhs_indices=ids, sorted_indices=is_sorted)
    return mx.gather_qmm(
        rows,
        w.weight,
        w.scales,
        w.biases,
        rhs_indices=ids,
        transpose=True,
        group_size=w.group_size,
        bits=w.bits,
        mode=w.mode,
        sorted_indices=is_sorted,
    )
