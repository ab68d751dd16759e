"""4-bit weights of AutoAWQ and 2-, 4- and 8-bit ones of AutoGPTQ, as MLX's affine form or as plain weights.

Both have w = scale * (q - zero) with a scale and a zero for each group of in-features, and both are stored transposed,
in words of 32 bits, lowest bits first (AutoAWQ awq/modules/linear/gemm.py, AutoGPTQ auto_gptq/nn_modules/qlinear/):

             qweight                                   qzeros [groups, out / 8]       scales [groups, out]
    AWQ      [in, out / 8]: outs 0 2 4 6 1 3 5 7       outs in the same order
    GPTQ     [in * bits / 32, out]: ins in order       outs in order, less one        g_idx [in]: the group of each in

So one cannot be read as the other. "Less one" is how version 1 of GPTQ's format stores a zero, in as many bits, so
that 0 becomes the largest code; "gptq_v2" stores it as it is. MLX's bias is -scale * zero: in float16 it is rounded, by
at most zero / 2048 of a scale, and not at all where the zero is a power of two, as it is in symmetric GPTQ.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mistral_mlx.convert.sources.source import Block, Bytes, SourceTensor
from mistral_mlx.errors import CheckpointError, shown
from mistral_mlx.kernels.fallback.packing import decode, floats

from .packed import Packed

AWQ, GPTQ, GPTQ_V2 = KINDS = ("AWQ", "GPTQ", "GPTQ v2")
COLUMNS = 256  # unpacked at a time
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # the out-features in a word, lowest bits first

Floats = npt.NDArray[np.float32]


class _Groups(NamedTuple):
    bits: int
    zeros: Bytes  # [groups, out]
    scales: Floats  # [groups, out]


def unpack(block: Block, tensor: SourceTensor) -> Floats:
    """Return the weights [out, in] of a whole tensor, computed in float32."""
    bits, zeros, scales = _groups(block, tensor)
    group = np.arange(tensor.columns) // (tensor.columns // len(zeros))
    if len(block) > 3:
        group = block[3].view("<i4")[0]
    weights = np.empty(tensor.shape, np.float32)
    with np.errstate(invalid="ignore", over="ignore"):  # a damaged scale makes NaN or infinity, which is told later
        for part, codes in _codes(block[0], tensor, bits):
            weights[:, part] = ((codes.astype(np.float32) - zeros[group[part]]) * scales[group[part]]).T
    return weights


def repack(block: Block, tensor: SourceTensor, dtype: npt.DTypeLike) -> Packed:
    """Return a whole tensor in MLX's affine form, scales and biases in `dtype`.

    Raises CheckpointError naming the tensor if a scale is not finite or a bias does not fit `dtype`.
    """
    assert tensor.packing is not None
    bits, zeros, stored = _groups(block, tensor)
    repeats = tensor.columns // tensor.packing.group_size // len(zeros)  # MLX knows no larger groups, but several alike
    scales = np.repeat(stored.T, repeats, axis=1)  # [groups, out] -> [out, groups of MLX]
    with np.errstate(invalid="ignore", over="ignore"):
        biases = (-np.repeat(zeros.T, repeats, axis=1).astype(np.float32) * scales).astype(dtype)
    if not (np.isfinite(scales).all() and np.isfinite(biases).all()):
        raise CheckpointError(
            f"tensor {shown(tensor.name)} has a group whose scale is not finite or too large for "
            f"{np.dtype(dtype).name}; the file may be damaged, otherwise --dtype float32 holds it"
        )
    weight = np.empty((tensor.rows, tensor.columns * bits // 32), np.uint32)
    for part, codes in _codes(block[0], tensor, bits):
        weight[:, part.start * bits // 32 : part.stop * bits // 32] = _words(np.ascontiguousarray(codes.T), bits)
    return Packed(weight, scales.astype(dtype), biases)


def _groups(block: Block, tensor: SourceTensor) -> _Groups:
    bits = 32 * block[1].shape[1] // 4 // tensor.rows
    zeros, scales = _split(block[1], bits), floats(decode(block[2], tensor.arrays[2].dtype))
    if tensor.kind == AWQ:
        zeros = _in_order(zeros)
    elif tensor.kind == GPTQ:
        zeros = zeros + np.uint8(1) & np.uint8((1 << bits) - 1)
    return _Groups(bits, zeros, scales)


def _codes(rows: Bytes, tensor: SourceTensor, bits: int) -> Iterator[tuple[slice, Bytes]]:
    """Yield COLUMNS in-features after the other, with their codes [ins, out]."""
    per_row = 1 if tensor.kind == AWQ else 32 // bits  # in-features in a row of the file
    for start in range(0, tensor.columns, COLUMNS):
        part = slice(start, min(start + COLUMNS, tensor.columns))
        some = rows[part.start // per_row : part.stop // per_row]
        yield part, _in_order(_split(some, bits)) if tensor.kind == AWQ else _below(some, bits)


def _below(rows: Bytes, bits: int) -> Bytes:
    """Return the codes of words that hold them one below the other: [rows, bytes] -> [rows * codes, words]."""
    words = rows.view("<u4")
    codes = np.stack([(words >> np.uint32(shift)).astype(np.uint8) for shift in range(0, 32, bits)], axis=1)
    return codes.reshape(-1, words.shape[1]) & np.uint8((1 << bits) - 1)


def _split(rows: Bytes, bits: int) -> Bytes:
    """Return the codes in rows of words, lowest bits first: [rows, bytes] -> [rows, codes]."""
    mask = np.uint8((1 << bits) - 1)
    codes = np.stack([rows >> np.uint8(shift) & mask for shift in range(0, 8, bits)], axis=-1)
    return codes.reshape(len(rows), -1)


def _in_order(codes: Bytes) -> Bytes:
    ordered = np.empty_like(codes).reshape(len(codes), -1, 8)
    ordered[..., AWQ_ORDER] = codes.reshape(ordered.shape)
    return ordered.reshape(codes.shape)


def _words(codes: Bytes, bits: int) -> npt.NDArray[np.uint32]:
    """Return MLX's words of [out, in] codes, lowest bits first."""
    parts = [codes[:, i :: 8 // bits] << np.uint8(bits * i) for i in range(8 // bits)]
    whole = parts[0]
    for part in parts[1:]:
        whole |= part
    return np.ascontiguousarray(whole).view("<u4")
