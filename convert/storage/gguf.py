"""Weights in GGUF's packed formats: unpacked, or as MLX's affine form, whole number by whole number.

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
m t are exact in float32 alone. An MLX word of 32 bits holds consecutive weights, low bits first. `gguf_grids` has the
formats whose weights are those of a grid.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mistral_mlx.errors import CheckpointError, shown
from mistral_mlx.model.packing import Packing

from . import bits as bits_of
from .gguf_grids import GRIDS, grid_affine
from .gguf_grids import HALVES as GRIDS_IN_HALVES
from .rows import Bytes, Floats, OneArray, Packed, Rows, Weights, read

GROUP = 32
PRODUCT_KINDS = ("Q4_K", "Q5_K")
# Float16 holds their scales only after rounding: to 11 bits, by 2^-11 at most.
ROUNDED_KINDS = (*PRODUCT_KINDS, *(kind for kind in GRIDS if kind not in GRIDS_IN_HALVES))
BITS = {"Q4_0": 4, "Q4_1": 4, "Q5_0": 5, "Q5_1": 5, "Q8_0": 8, "Q4_K": 4, "Q5_K": 5}
PACKINGS = {kind: Packing(bits, GROUP) for kind, bits in BITS.items()} | {kind: g.packing for kind, g in GRIDS.items()}
BLOCK_NBYTES = {"Q4_0": 18, "Q4_1": 20, "Q5_0": 22, "Q5_1": 24, "Q8_0": 34, "Q4_K": 144, "Q5_K": 176}
# For the formats with groups of 16 or other numbers: the fewest bits whose error is small next to that of the format.
# They add 4 % of the weights' norm at 5 bits, 2 % at 6, 0.6 % at 8.
NEAREST = {
    kind: packing
    for packing, kinds in {
        Packing(5, 32): "Q2_K IQ2_XS IQ2_S",
        Packing(6, 64): "MXFP4 NVFP4",
        Packing(8, 64): "Q6_K",
    }.items()
    for kind in kinds.split()
}
KINDS = (*PACKINGS, *NEAREST)
DTYPES = {"F16": np.float16, "F32": np.float32}


@dataclass(frozen=True)
class Gguf(OneArray):
    """Rows of ggml blocks; `kind` is one of KINDS."""

    @property
    def exact(self) -> Packing | None:
        return PACKINGS.get(self.kind)

    @property
    def exact_dtypes(self) -> tuple[str, ...]:
        if self.kind in GRIDS and self.kind not in GRIDS_IN_HALVES:
            return ("F32", "F16")  # few bits a weight were lost with much more than the bits of these scales
        return ("F16", "F32") if self.exact else ()

    @property
    def nearest(self) -> Packing | None:
        return NEAREST.get(self.kind)

    def blocks(self, step: int) -> Iterator[Rows]:
        return (GgufRows(raw, self.kind, self.array.tensor) for raw in read(self.array, step))

    def loss(self, dtype: str) -> str:
        if self.kind not in ROUNDED_KINDS or dtype == "F32":
            return ""
        return ", their scales rounded to float16 (--dtype float32 keeps them to the bit)"


@dataclass(frozen=True)
class GgufRows(Rows):
    """Rows of a Gguf."""

    raw: Bytes
    kind: str
    tensor: str

    @property
    def n_rows(self) -> int:
        return len(self.raw)

    def weights(self) -> Weights:
        from gguf import GGMLQuantizationType, quants  # slow to import, and for GGUF alone

        with np.errstate(all="ignore"):  # a damaged scale makes NaN or infinity, which is told later
            return Weights.of(quants.dequantize(self.raw, GGMLQuantizationType[self.kind]))

    def affine(self, dtype: str) -> Packed:
        with np.errstate(over="ignore", invalid="ignore"):
            parts = grid_affine if self.kind in GRIDS else affine
            codes, *numbers = parts(self.raw, self.kind)  # in float32, where they are exact
            scales, biases = (part.astype(DTYPES[dtype]) for part in numbers)
        if not (np.isfinite(scales).all() and np.isfinite(biases).all()):
            raise CheckpointError(
                f"tensor {shown(self.tensor)} has a {self.kind} block whose scale is not finite or too large for "
                f"{scales.dtype.name}; the file may be damaged, otherwise --dtype float32 holds it"
            )
        return Packed(bits_of.pack(codes, PACKINGS[self.kind].bits).view("<u4"), scales, biases)


def affine(raw: Bytes, kind: str) -> tuple[Bytes, Floats, Floats]:
    """Return the codes ``[rows, columns]`` of stored rows, their scales and biases ``[rows, columns / 32]``."""
    n_rows = len(raw)
    blocks = raw.reshape(n_rows, -1, BLOCK_NBYTES[kind])  # [rows, bytes] -> [rows, blocks, bytes of a block]
    if kind in PRODUCT_KINDS:
        scales, biases = _products(blocks)
        codes = _interleaved(blocks[..., -128:])
        if kind == "Q5_K":
            fifth = bits_of.unpack_bits(blocks[..., 16:48]).swapaxes(-1, -2)  # bit g of byte i: weight i of group g
            codes |= fifth << np.uint8(4)
        scales, biases = (part.reshape(n_rows, -1) for part in (scales, biases))
    else:
        scales = _halves(blocks, 0)
        biases = _halves(blocks, 2) if kind.endswith("_1") else scales * np.float32(-(1 << (BITS[kind] - 1)))
        if kind == "Q8_0":
            codes = blocks[..., 2:] ^ np.uint8(0x80)  # q + 128 of a signed byte: its top bit turned
        else:
            nibbles = blocks[..., -16:]
            codes = np.concatenate([nibbles & np.uint8(15), nibbles >> np.uint8(4)], axis=-1)
        if kind.startswith("Q5"):
            codes |= bits_of.unpack_bits(blocks[..., -20:-16]).reshape(codes.shape) << np.uint8(4)
    return codes.reshape(n_rows, -1), scales, biases


def _products(blocks: Bytes) -> tuple[Floats, Floats]:
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


def _halves(blocks: Bytes, start: int) -> Floats:
    raw = np.ascontiguousarray(blocks[..., start : start + 2])
    return raw.view("<f2")[..., 0].astype(np.float32)  # [rows, groups, 2 bytes] -> [rows, groups]
