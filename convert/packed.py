"""GGUF's packed rows as MLX's affine form, without a single rounding; knows nothing of files.

Both cut a row into groups of 32 weights. GGUF's blocks lie one after another, MLX keeps three arrays:

    Q4_0   d: float16, 16 bytes of nibbles             w = d * (q - 8)      scale d, bias -8 d
    Q4_1   d, m: float16, 16 bytes of nibbles          w = d * q + m        scale d, bias m
    Q8_0   d: float16, 32 signed bytes                 w = d * q            scale d, bias -128 d, q + 128

Byte j of a Q4 block holds weight j in its low nibble and weight j + 16 in its high one. An MLX word of 32 bits holds
8 consecutive 4-bit weights, low nibble first, or 4 consecutive bytes, low byte first.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mistral_mlx.args import Packing
from mistral_mlx.errors import CheckpointError, shown

from .source import Block, Bytes, SourceTensor

PACKINGS = {"Q4_0": Packing(4, 32), "Q4_1": Packing(4, 32), "Q8_0": Packing(8, 32)}
BLOCK_NBYTES = {"Q4_0": 18, "Q4_1": 20, "Q8_0": 34}

Floats = npt.NDArray[np.floating]


class Packed(NamedTuple):
    """A weight in MLX's affine form."""

    weight: npt.NDArray[np.uint32]  # [rows, columns * bits / 32]
    scales: Floats  # [rows, columns / 32]
    biases: Floats  # [rows, columns / 32]


def repack(block: Block, tensor: SourceTensor, dtype: npt.DTypeLike) -> Packed:
    """Return stored rows of `tensor` with scales and biases of `dtype`.

    Raises CheckpointError naming the tensor if a scale is not finite or a bias does not fit `dtype`.
    """
    (rows,), kind = block, tensor.kind
    blocks = rows.reshape(rows.shape[0], -1, BLOCK_NBYTES[kind])  # [rows, bytes] -> [rows, groups, bytes of a block]
    scales = _halves(blocks, 0)
    if kind == "Q8_0":
        biases = np.float32(-128) * scales
        quants = blocks[..., 2:] ^ np.uint8(0x80)  # q + 128 of a signed byte: its top bit turned
    elif kind == "Q4_0":
        biases = np.float32(-8) * scales
        quants = _nibbles(blocks[..., 2:])
    else:
        biases = _halves(blocks, 2)
        quants = _nibbles(blocks[..., 4:])
    with np.errstate(over="ignore"):
        packed = Packed(_words(quants), scales.astype(dtype), biases.astype(dtype))
    if not (np.isfinite(packed.scales).all() and np.isfinite(packed.biases).all()):
        raise CheckpointError(
            f"tensor {shown(tensor.name)} has a {kind} block whose scale is not finite or too large for "
            f"{np.dtype(dtype).name}; the file may be damaged, otherwise --dtype float32 holds it"
        )
    return packed


def _halves(blocks: Bytes, start: int) -> npt.NDArray[np.float32]:
    raw = np.ascontiguousarray(blocks[..., start : start + 2])
    return raw.view("<f2")[..., 0].astype(np.float32)  # [rows, groups, 2 bytes] -> [rows, groups]


def _nibbles(quants: Bytes) -> Bytes:
    """Return the nibbles of [rows, groups, 16] two by two in the order of the weights."""
    nibble = np.uint8(4)
    ordered: Bytes = np.concatenate([quants & np.uint8(0x0F), quants >> nibble], axis=-1)  # [rows, groups, 32]
    return ordered[..., 0::2] | ordered[..., 1::2] << nibble  # [rows, groups, 16]


def _words(quants: Bytes) -> npt.NDArray[np.uint32]:
    return np.ascontiguousarray(quants).reshape(quants.shape[0], -1).view("<u4")
