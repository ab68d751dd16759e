"""Converts MLX's float modes, without rounding, to forms that the CPU kernels know.

MLX's own CPU backend is slow with these modes.

    mxfp4   e2m1 codes, an e8m0 scale for 32    twice a value is a whole number up to 12: affine, 8 bits
    mxfp8   e4m3 codes, an e8m0 scale for 32    4 significant bits times a power of two: bfloat16
    nvfp4   e2m1 codes, an e4m3 scale for 16    2 significant bits times 4: bfloat16

Two ranges, which no model uses, are lost: mxfp8 weights below 2^-126, and mxfp4 groups with a scale of 2^123 or more.
"""

from functools import cache

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

GROUP_SIZES = {"mxfp4": 32, "mxfp8": 32, "nvfp4": 16}
CODE_BITS = {"mxfp4": 4, "mxfp8": 8, "nvfp4": 4}
HELD_BITS = {"mxfp4": 9, "mxfp8": 16, "nvfp4": 16}  # a weight with its scale and bias
AFFINE_ZERO = 12  # the code of 0 for mxfp4
BLOCK_BYTES = 1 << 22  # bytes of codes that are unpacked at a time

Table = NDArray[np.uint16 | np.uint32]


def unpack(mode: str, weight: mx.array, scales: mx.array) -> tuple[mx.array, ...]:
    """Return the same weights, ``[..., K]``: for mxfp4 affine (codes, scales, biases), else bfloat16."""
    codes, exponents = np.asarray(weight).view(np.uint8), np.asarray(scales)
    if mode == "mxfp4":
        unpacked = mx.array(_affine_codes()[codes].view(np.uint32))
        held = mx.array(_affine_scales()[exponents]).view(mx.bfloat16)
        return unpacked, held, held * -AFFINE_ZERO
    table, per_scale = _values(mode), GROUP_SIZES[mode] * CODE_BITS[mode] // 8  # bytes of codes
    rows, row_exponents = (part.reshape(-1, part.shape[-1]) for part in (codes, exponents))
    out = np.empty(rows.shape, table.dtype)
    step = max(1, BLOCK_BYTES // rows.shape[1])
    for i in range(0, len(rows), step):
        high = np.repeat(row_exponents[i : i + step].astype(np.uint16) << np.uint16(8), per_scale, axis=1)
        out[i : i + step] = table[high | rows[i : i + step]]
    return (mx.array(out.reshape(codes.shape).view(np.uint16)).view(mx.bfloat16),)


@cache
def _affine_codes() -> Table:
    """Return the two affine codes for every byte of mxfp4, the first one in the low byte."""
    magnitudes = np.array([0, 1, 2, 3, 4, 6, 8, 12])  # doubled
    codes = np.concatenate([AFFINE_ZERO + magnitudes, AFFINE_ZERO - magnitudes]).astype(np.uint16)
    table: Table = (codes[:, None] << np.uint16(8) | codes[None, :]).reshape(-1)  # [high, low] -> [byte]
    return table


@cache
def _affine_scales() -> Table:
    """Return half of every e8m0 scale, 2^(e - 127), as the bits of a bfloat16; NaN for 255."""
    halves = np.ldexp(np.float32(0.5), np.arange(256) - 127)
    halves[255] = np.nan
    bits = np.asarray(halves).view(np.uint32) >> np.uint32(16)
    table: Table = bits.astype(np.uint16)
    return table


@cache
def _values(mode: str) -> Table:
    """Return the bits of the one or two bfloat16 weights for every scale and byte of codes."""
    group, bits = GROUP_SIZES[mode], CODE_BITS[mode]
    codes = mx.array(np.tile(np.arange(256, dtype=np.uint8), (256, 1)).view(np.uint32))
    scales = mx.array(np.repeat(np.arange(256, dtype=np.uint8)[:, None], 256 * 8 // bits // group, axis=1))
    values = mx.dequantize(codes, scales, group_size=group, bits=bits, mode=mode, dtype=mx.bfloat16)
    pairs = np.asarray(values.view(mx.uint16))
    table: Table = (pairs if bits == 8 else pairs.view(np.uint32)).reshape(-1)
    return table
