"""GGUF's packed rows as MLX's affine form, whole number by whole number; knows nothing of files.

Both cut a row into groups of 32 weights. GGUF's blocks lie one after another, MLX keeps three arrays:

    Q4_0   d: float16, 16 bytes of nibbles                    w = d * (q - 8)      scale d, bias -8 d
    Q4_1   d, m: float16, 16 bytes of nibbles                 w = d * q + m        scale d, bias m
    Q5_0   d: float16, 4 bytes of fifth bits, nibbles         w = d * (q - 16)     scale d, bias -16 d
    Q5_1   d, m: float16, 4 bytes of fifth bits, nibbles      w = d * q + m        scale d, bias m
    Q8_0   d: float16, 32 signed bytes                        w = d * q            scale d, bias -128 d, q + 128
    Q4_K   d, m: float16, 12 bytes of s and t, nibbles        w = d s q - m t      scale d s, bias -m t
    Q5_K   d, m, s and t, 32 bytes of fifth bits, nibbles     w = d s q - m t      scale d s, bias -m t

Byte j of a block of 32 holds weight j in its low nibble and weight j + 16 in its high one. A block of Q4_K or Q5_K is 8
groups, each with s and t of 6 bits; 32 bytes hold the nibbles of two groups, the first one's low. The products d s and
m t are exact in float32 alone. An MLX word of 32 bits holds consecutive weights, low bits first.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mistral_mlx.convert.sources.source import Block, Bytes, SourceTensor
from mistral_mlx.errors import CheckpointError, shown
from mistral_mlx.model.args import Packing

GROUP = 32
PRODUCT_KINDS = ("Q4_K", "Q5_K")  # float16 holds their scales only after rounding: to 11 bits, by 2^-11 at most
BITS = {"Q4_0": 4, "Q4_1": 4, "Q5_0": 5, "Q5_1": 5, "Q8_0": 8, "Q4_K": 4, "Q5_K": 5}
PACKINGS = {kind: Packing(bits, GROUP) for kind, bits in BITS.items()}
BLOCK_NBYTES = {"Q4_0": 18, "Q4_1": 20, "Q5_0": 22, "Q5_1": 24, "Q8_0": 34, "Q4_K": 144, "Q5_K": 176}

Floats = npt.NDArray[np.floating]
Singles = npt.NDArray[np.float32]


class Packed(NamedTuple):
    """A weight in MLX's affine form."""

    weight: npt.NDArray[np.uint32]  # [rows, columns * bits / 32]
    scales: Floats  # [rows, columns / 32]
    biases: Floats  # [rows, columns / 32]


def repack(block: Block, tensor: SourceTensor, dtype: npt.DTypeLike) -> Packed:
    """Return stored rows of `tensor` with scales and biases of `dtype`.

    Raises CheckpointError naming the tensor if a scale is not finite or a bias does not fit `dtype`.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        packed = affine(block, tensor.kind)
        packed = Packed(packed.weight, packed.scales.astype(dtype), packed.biases.astype(dtype))
    if not (np.isfinite(packed.scales).all() and np.isfinite(packed.biases).all()):
        raise CheckpointError(
            f"tensor {shown(tensor.name)} has a {tensor.kind} block whose scale is not finite or too large for "
            f"{np.dtype(dtype).name}; the file may be damaged, otherwise --dtype float32 holds it"
        )
    return packed


def affine(block: Block, kind: str) -> Packed:
    """Return stored rows of `kind` with scales and biases in float32, where they are exact."""
    (rows,) = block
    blocks = rows.reshape(rows.shape[0], -1, BLOCK_NBYTES[kind])  # [rows, bytes] -> [rows, blocks, bytes of a block]
    if kind in PRODUCT_KINDS:
        scales, biases = _products(blocks)
        codes = _interleaved(blocks[..., -128:])
        if kind == "Q5_K":
            codes |= _bits(blocks[..., 16:48]).swapaxes(-1, -2) << np.uint8(4)  # bit g of byte i: weight i of group g
        scales, biases = (part.reshape(rows.shape[0], -1) for part in (scales, biases))
    else:
        scales = _halves(blocks, 0)
        biases = _halves(blocks, 2) if kind.endswith("_1") else scales * np.float32(-(1 << (BITS[kind] - 1)))
        if kind == "Q8_0":
            codes = blocks[..., 2:] ^ np.uint8(0x80)  # q + 128 of a signed byte: its top bit turned
        else:
            nibbles = blocks[..., -16:]
            codes = np.concatenate([nibbles & np.uint8(15), nibbles >> np.uint8(4)], axis=-1)
        if kind.startswith("Q5"):
            codes |= _bits(blocks[..., -20:-16]).reshape(codes.shape) << np.uint8(4)
    return Packed(_words(codes.reshape(rows.shape[0], -1), BITS[kind]), scales, biases)


def _products(blocks: Bytes) -> tuple[Singles, Singles]:
    """Return d s and -m t of the 8 groups in each block: [rows, blocks, 8].

    The 12 bytes from the fourth on are s and t of groups 0 to 3, 6 bits in a byte, and the low 4 bits of s and t of
    groups 4 to 7; the high two of those are what is left of the first 8 bytes.
    """
    first, second, both = (blocks[..., start : start + 4] for start in (4, 8, 12))
    low, high, four = np.uint8(0x3F), np.uint8(0x30), np.uint8(4)
    s = np.concatenate([first & low, both & np.uint8(15) | first >> np.uint8(2) & high], axis=-1)
    t = np.concatenate([second & low, both >> four | second >> np.uint8(2) & high], axis=-1)
    d, m = _halves(blocks, 0)[..., None], _halves(blocks, 2)[..., None]
    return d * s.astype(np.float32), -(m * t.astype(np.float32))


def _interleaved(quants: Bytes) -> Bytes:
    """Return the nibbles of two groups in 32 bytes, group by group: [rows, blocks, 128] -> [rows, blocks, 8, 32]."""
    pairs = quants.reshape(*quants.shape[:-1], 4, 1, GROUP)
    nibbles: Bytes = np.concatenate([pairs & np.uint8(15), pairs >> np.uint8(4)], axis=-2)
    return nibbles.reshape(*quants.shape[:-1], 8, GROUP)


def _halves(blocks: Bytes, start: int) -> Singles:
    raw = np.ascontiguousarray(blocks[..., start : start + 2])
    return raw.view("<f2")[..., 0].astype(np.float32)  # [rows, groups, 2 bytes] -> [rows, groups]


def _bits(raw: Bytes) -> Bytes:
    """Return every bit as a number, low ones first: [..., bytes] -> [..., bytes, 8]."""
    bits: Bytes = np.unpackbits(raw[..., None], axis=-1, bitorder="little")
    return bits


def _words(codes: Bytes, bits: int) -> npt.NDArray[np.uint32]:
    """Return numbers of `bits` bits end to end: [rows, columns] -> [rows, columns * bits / 32]."""
    if bits == 4:
        codes = codes[:, 0::2] | codes[:, 1::2] << np.uint8(4)
    elif bits != 8:
        single = np.unpackbits(codes[..., None], axis=-1, bitorder="little", count=bits)
        codes = np.packbits(single.reshape(codes.shape[0], -1), axis=-1, bitorder="little")
    return np.ascontiguousarray(codes).view("<u4")
