"""Rows of an MLX folder as GGUF's blocks: packed ones without a rounding where GGUF has the form; knows no file.

MLX keeps w = scale * q + bias in groups of 32, 64 or 128 weights, GGUF in blocks of 32 with float16 numbers (`packed`
has the layouts; Q5_0 and Q5_1 have the fifth bits in 4 bytes before the nibbles). A larger group becomes blocks that
repeat its scale and bias. The forms with one number imply the bias -2^(bits - 1) * scale: a weight all whose biases are
just that takes one of them, any other with up to 5 bits a form with both numbers.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType, quants

from mistral_mlx.convert.sources.source import Block, Bytes
from mistral_mlx.kernels.fallback.packing import MLX_DTYPES, decode, floats
from mistral_mlx.model.args import Packing

BLOCK = 32
SYMMETRIC_KINDS = {4: "Q4_0", 5: "Q5_0", 6: "Q8_0", 8: "Q8_0"}  # by bits, if the bias is implied
AFFINE_KINDS = {2: "Q4_1", 3: "Q4_1", 4: "Q4_1", 5: "Q5_1"}
PLAIN_KINDS = ("F32", "F16", "BF16")

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Form:
    """How the rows of a weight lie in an MLX folder."""

    dtype: str  # F16, BF16 or F32: of the weight, or of the scales of a packed one
    packing: Packing | None = None


def unpacked(block: Block, form: Form) -> Floats:
    """Return the weights of stored rows: the weight alone, or with its scales and biases."""
    if form.packing is None:
        return floats(decode(block[0], form.dtype))
    bits, group_size, mode = form.packing
    weight = mx.array(np.ascontiguousarray(block[0]).view("<u4"))
    if mode != "affine":
        made = mx.dequantize(weight, mx.array(block[1]), group_size=group_size, bits=bits, mode=mode)
        return floats(made)
    scales, biases = (mx.array(part) for part in numbers(block, form))
    return floats(mx.dequantize(weight, scales, biases, group_size=group_size, bits=bits))


def numbers(block: Block, form: Form) -> tuple[Floats, Floats]:
    """Return the scales and biases of stored rows, which are the last two parts of `block`."""
    scales, biases = (floats(decode(part, form.dtype)) for part in block[-2:])
    return scales, biases


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


def survey(parts: Iterable[Block], form: Form) -> Survey:
    """Look through all scales and biases of a weight packed in the affine form."""
    assert form.packing is not None
    symmetric, rounding, steps = True, 0.0, (1 << form.packing.bits) - 1
    for block in parts:
        scales, biases = numbers(block, form)
        symmetric = symmetric and bool((biases == scales * np.float32(-(steps + 1) // 2)).all())
        moved = [float(np.abs(_half(part).astype(np.float32) - part).max()) for part in (scales, biases)]
        rounding = max(rounding, moved[0] * steps + moved[1])
    return Survey(symmetric, rounding)


def carried(block: Block, form: Form, kind: str) -> Bytes:
    """Return the blocks of `kind` that hold the same whole numbers as stored packed rows: [rows, bytes]."""
    assert form.packing is not None
    bits, group_size, _ = form.packing
    repeat = group_size // BLOCK
    scales, biases = (np.repeat(_half(part), repeat, axis=1) for part in numbers(block, form))
    codes = _codes(block[0], bits).reshape(*scales.shape, BLOCK)  # [rows, blocks, 32]
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
    if kind in PLAIN_KINDS:
        made = mx.array(weights).astype(MLX_DTYPES[kind])
        return np.asarray(made.view(mx.uint8))
    return np.asarray(quants.quantize(weights, GGMLQuantizationType[kind]))


def permuted(rows: Bytes, head_dim: int) -> Bytes:
    """Return the rows of whole heads in llama.cpp's order; undoes `source.restore_rotary`."""
    heads = rows.reshape(-1, 2, head_dim // 2, rows.shape[-1])  # [heads * Dh, bytes] -> [heads, 2, Dh/2, bytes]
    return np.ascontiguousarray(heads.swapaxes(1, 2)).reshape(rows.shape)


def _codes(rows: Bytes, bits: int) -> Bytes:
    """Return the whole numbers of packed rows, one in a byte; MLX writes them on end, low bits first."""
    if bits == 8:
        return rows
    if bits == 4:
        return np.stack([rows & np.uint8(15), rows >> np.uint8(4)], axis=-1).reshape(rows.shape[0], -1)
    single = np.unpackbits(rows, axis=-1, bitorder="little").reshape(rows.shape[0], -1, bits)
    return np.packbits(single, axis=-1, bitorder="little")[..., 0]


def _half(part: Floats) -> npt.NDArray[np.float16]:
    with np.errstate(over="ignore"):
        return part.astype("<f2")


def _as_bytes(halves: npt.NDArray[np.float16]) -> Bytes:
    return np.ascontiguousarray(halves)[..., None].view(np.uint8)
