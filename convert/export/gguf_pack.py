"""Rows of an MLX folder as GGUF's blocks: packed ones without a rounding where GGUF has the form.

MLX keeps w = scale * q + bias in groups of 32, 64 or 128 weights, GGUF in blocks of 32 with float16 numbers
(`storage.gguf` has the layouts; Q5_0 and Q5_1 have the fifth bits in 4 bytes before the nibbles). A larger group
becomes blocks that repeat its scale and bias. The forms with one number imply the bias -2^(bits - 1) * scale: a weight
takes one of them if all its biases are just that, and a form with both numbers otherwise, if it has up to 5 bits.
"""

from dataclasses import dataclass

import mlx.core as mx
import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType, quants

from mistral_mlx.convert.storage import bits as bits_of
from mistral_mlx.convert.storage.mlx import Mlx, MlxRows
from mistral_mlx.convert.storage.rows import FLOAT_KINDS, Bytes, Floats
from mistral_mlx.kernels.dtypes import MLX_DTYPES

BLOCK = 32
SYMMETRIC_KINDS = {4: "Q4_0", 5: "Q5_0", 6: "Q8_0", 8: "Q8_0"}  # by bits, if the bias is implied
AFFINE_KINDS = {2: "Q4_1", 3: "Q4_1", 4: "Q4_1", 5: "Q5_1"}


@dataclass(frozen=True)
class Survey:
    """What the scales and biases of a packed weight allow."""

    is_symmetric: bool  # every bias is what the forms with one number imply
    rounding: float  # how far float16 in place of them moves a weight at most; infinity if one does not fit

    def kinds(self, bits: int) -> tuple[str, ...]:
        """Return the kinds that hold such a weight as it is, the smallest first."""
        if not np.isfinite(self.rounding):
            return ()
        by_need = ((SYMMETRIC_KINDS, self.is_symmetric), (AFFINE_KINDS, True))
        return tuple(kinds[bits] for kinds, fits in by_need if fits and bits in kinds)


def survey(storage: Mlx, step: int) -> Survey:
    """Look through all scales and biases of a weight packed in the affine form, `step` rows at a time."""
    symmetric, rounding, steps = True, 0.0, (1 << storage.packing.bits) - 1
    for scales, biases in storage.numbers(step):
        symmetric = symmetric and bool((biases == scales * np.float32(-(steps + 1) // 2)).all())
        moved = [float(np.abs(_half(part).astype(np.float32) - part).max()) for part in (scales, biases)]
        rounding = max(rounding, moved[0] * steps + moved[1])
    return Survey(symmetric, rounding)


def carried(rows: MlxRows, kind: str) -> Bytes:
    """Return the blocks of `kind` that hold the same whole numbers as stored packed rows: [rows, bytes]."""
    bits, group_size, _ = rows.storage.packing
    repeat = group_size // BLOCK
    scales, biases = (np.repeat(_half(part), repeat, axis=1) for part in rows.numbers())
    codes = bits_of.unpack(rows.weight, bits).reshape(*scales.shape, BLOCK)  # [rows, blocks, 32]
    parts = [_as_bytes(scales)]
    if kind.endswith("_1"):
        parts.append(_as_bytes(biases))
    if kind == "Q8_0":
        parts.append(codes - np.uint8(1 << (bits - 1)))  # wraps round into a signed byte
    else:
        if kind.startswith("Q5"):
            parts.append(np.packbits(codes >> 4, axis=-1, bitorder="little"))
        low, high = codes[..., :16] & np.uint8(15), codes[..., 16:] & np.uint8(15)
        parts.append(low | high << np.uint8(4))
    return np.concatenate(parts, axis=-1).reshape(codes.shape[0], -1)


def rounded(weights: Floats, kind: str) -> Bytes:
    """Return plain weights as `kind`, rounded as llama.cpp does."""
    if kind in FLOAT_KINDS:
        made = mx.array(weights).astype(MLX_DTYPES[kind])
        return np.asarray(made.view(mx.uint8))
    return np.asarray(quants.quantize(weights, GGMLQuantizationType[kind]))


def _half(part: Floats) -> npt.NDArray[np.float16]:
    with np.errstate(over="ignore"):
        return part.astype("<f2")


def _as_bytes(halves: npt.NDArray[np.float16]) -> Bytes:
    return np.ascontiguousarray(halves)[..., None].view(np.uint8)
