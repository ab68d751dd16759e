"""GGUF's formats whose weights are whole numbers times a factor of their group, in MLX's affine form: the same weights.

A weight is d * f * v: d is float16, f a whole number that its group of 32 shares (a "sub-scale"), and v comes from a
small grid, so that codes of a few bits can hold it, and `scale * code + bias` is exact in float32:

    IQ4_NL         d v          v one of 16 signed bytes                    8 bits: code v + 128
    IQ4_XS         d f v        f = s - 32, v as above                      8 bits: code v + 128
    IQ3_S          d f v        f = 2 s + 1, v odd, |v| <= 15               4 bits: code (v + 15) / 2
    IQ3_XXS        d f v / 4    f = 2 s + 1, v even, |v| <= 62              6 bits: code v / 2 + 32
    IQ2_XXS        d f v / 8    f = 2 s + 1, |v| one of 8, 25, 43           8 bits: code v + 128
    IQ1_S          d f (v + t)  f = 2 s + 1, v -1 to 1, t -1/8 or 1/8       2 bits: code v + 1
    IQ1_M          d v / 8      v odd, |v| <= 135: the products of groups   8 bits: code (v + 135) / 2
    Q3_K           d v          v -124 to 128: the products of groups       8 bits: code 128 - v
    TQ1_0, TQ2_0   d v          v -1 to 2                                   2 bits: code v + 1

IQ1_M and Q3_K have sub-scales of 16 weights, for which MLX has no group; but their products with the grid are small
numbers. The gguf library unpacks the grids: of blocks whose d and sub-scales were read and then made 1.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from mistral_mlx.model.packing import Packing

from . import bits as bits_of
from .rows import Bytes, Floats

ONE = (0x00, 0x3C)  # float16


class Grid(NamedTuple):
    """How the weights of a block become codes, once its d and its sub-scales are 1."""

    packing: Packing
    step: float  # between the weights of two neighbouring codes
    offset: float  # the code of a weight that is 0
    factors: Callable[[Bytes], Floats]  # reads d f of blocks [n, bytes] as [n, groups or 1], and makes them 1 there


def grid_affine(raw: Bytes, kind: str) -> tuple[Bytes, Floats, Floats]:
    """Return the codes ``[rows, columns]`` of stored rows, their scales and biases ``[rows, columns / group size]``."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants  # slow to import, and for GGUF alone

    packing, step, offset, factors_of = GRIDS[kind]
    n_rows, of = len(raw), GGMLQuantizationType[kind]
    n_weights, nbytes = GGML_QUANT_SIZES[of]
    blocks = raw.reshape(-1, nbytes).copy()  # [rows, bytes] -> [rows * blocks, bytes of a block]
    shifted = _shifts(blocks) if kind == "IQ1_S" else np.float32(0)
    scales = factors_of(blocks) * np.float32(step)
    scales = np.broadcast_to(scales, (len(blocks), n_weights // packing.group_size))
    biases = scales * (shifted - np.float32(offset))
    codes = quants.dequantize(blocks, of) / np.float32(step) + np.float32(offset)  # whole numbers, in float32
    return codes.astype(np.uint8).reshape(n_rows, -1), scales.reshape(n_rows, -1), biases.reshape(n_rows, -1)


def _d(blocks: Bytes, start: int = 0) -> Floats:
    """Return the float16 number at the byte `start` of each block, [n, 1], and make it 1 there."""
    d = blocks[:, start : start + 2].copy().view("<f2").astype(np.float32)
    blocks[:, start : start + 2] = ONE
    return d


def _iq4_xs(blocks: Bytes) -> Floats:
    """Six bits for each of 8 groups: two in bytes 2 and 3, four in the nibbles behind them."""
    high, low = bits_of.unpack(blocks[:, 2:4], 2), bits_of.unpack(blocks[:, 4:8], 4)
    blocks[:, 2:4], blocks[:, 4:8] = 0xAA, 0x11  # 33
    return _d(blocks) * ((low | high << np.uint8(4)).astype(np.float32) - 32)


def _iq3_s(blocks: Bytes) -> Floats:
    """Four bits for each of 8 groups, in the last bytes."""
    s = bits_of.unpack(blocks[:, -4:], 4)
    blocks[:, -4:] = 0
    return _d(blocks) * _odd(s)


def _top_nibbles(first: int, distance: int) -> Callable[[Bytes], Floats]:
    """Return the `factors` of a format with the bits of each group in the high half of a byte."""

    def factors(blocks: Bytes) -> Floats:
        words = blocks[:, first::distance]  # [n, 8]
        s = words >> np.uint8(4)
        words &= np.uint8(15)
        return _d(blocks) * _odd(s)

    return factors


def _shifts(blocks: Bytes) -> Floats:
    """Return how far t lies from 1/8 in each group of IQ1_S, [n, 8], and make it 1/8 there: it is the highest bit."""
    words = blocks[:, 35::2]
    found = np.where(words & np.uint8(0x80), np.float32(-0.25), np.float32(0))
    words &= np.uint8(0x7F)
    return found


def _iq1_m(blocks: Bytes) -> Floats:
    """The nibbles of d are the high ones of four words, the lowest first."""
    words = blocks[:, 49::2]  # [n, 4]
    d = bits_of.pack(words >> np.uint8(4), 4).view("<f2").astype(np.float32)
    words &= np.uint8(15)
    words |= np.array([0x00, 0x00, 0xC0, 0x30], np.uint8)
    return d


def _odd(s: Bytes) -> Floats:
    return 2 * s.astype(np.float32) + 1


GRIDS = {
    "IQ4_NL": Grid(Packing(8, 32), 1, 128, _d),
    "IQ4_XS": Grid(Packing(8, 32), 1, 128, _iq4_xs),
    "IQ3_S": Grid(Packing(4, 32), 2, 7.5, _iq3_s),
    "IQ3_XXS": Grid(Packing(6, 32), 0.5, 32, _top_nibbles(69, 4)),
    "IQ2_XXS": Grid(Packing(8, 32), 0.125, 128, _top_nibbles(9, 8)),
    "IQ1_S": Grid(Packing(2, 32), 1, 0.875, _top_nibbles(35, 2)),
    "IQ1_M": Grid(Packing(8, 128), 0.25, 67.5, _iq1_m),
    "Q3_K": Grid(Packing(8, 128), -1, 128, partial(_d, start=108)),
    "TQ1_0": Grid(Packing(2, 128), 1, 1, partial(_d, start=52)),
    "TQ2_0": Grid(Packing(2, 128), 1, 1, partial(_d, start=64)),
}
# Whose scales and biases float16 holds: d, and d times a power of two.
HALVES = ("IQ4_NL", "Q3_K", "TQ1_0", "TQ2_0")
