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

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mistral_mlx.errors import CheckpointError, shown
from mistral_mlx.kernels.packing import decode, floats

from .packed import Packed
from .source import Block, Bytes, SourceTensor

AWQ, GPTQ, GPTQ_V2 = KINDS = ("AWQ", "GPTQ", "GPTQ v2")
COLUMNS = 256  # unpacked at a time
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # the out-features in a word, lowest bits first

Floats = npt.NDArray[np.float32]


class _Codes(NamedTuple):
    weight: Bytes  # [in, out]
    zeros: Bytes  # [groups, out]
    scales: Floats  # [groups, out]


def unpack(block: Block, tensor: SourceTensor) -> Floats:
    """Return the weights [out, in] of a whole tensor, computed in float32."""
    codes = _codes(block, tensor)
    n_in, n_groups = len(codes.weight), len(codes.zeros)
    group = block[3].view("<i4")[0] if len(block) > 3 else np.arange(n_in) // (n_in // n_groups)
    weights = np.empty((tensor.rows, n_in), np.float32)
    with np.errstate(invalid="ignore", over="ignore"):  # a damaged scale makes NaN or infinity, which is told later
        for start in range(0, n_in, COLUMNS):
            part = slice(start, start + COLUMNS)
            steps = codes.weight[part].astype(np.float32) - codes.zeros[group[part]]
            weights[:, part] = (steps * codes.scales[group[part]]).T
    return weights


def repack(block: Block, tensor: SourceTensor, dtype: npt.DTypeLike) -> Packed:
    """Return a whole tensor in MLX's affine form, scales and biases in `dtype`.

    Raises CheckpointError naming the tensor if a scale is not finite or a bias does not fit `dtype`.
    """
    assert tensor.packing is not None
    bits, group_size, _ = tensor.packing
    codes = _codes(block, tensor)
    repeats = tensor.columns // group_size // len(codes.scales)  # MLX knows no larger groups, but several alike
    scales = np.repeat(codes.scales.T, repeats, axis=1)  # [groups, out] -> [out, groups of MLX]
    with np.errstate(invalid="ignore", over="ignore"):
        biases = (-np.repeat(codes.zeros.T, repeats, axis=1).astype(np.float32) * scales).astype(dtype)
    if not (np.isfinite(scales).all() and np.isfinite(biases).all()):
        raise CheckpointError(
            f"tensor {shown(tensor.name)} has a group whose scale is not finite or too large for "
            f"{np.dtype(dtype).name}; the file may be damaged, otherwise --dtype float32 holds it"
        )
    return Packed(_words(np.ascontiguousarray(codes.weight.T), bits), scales.astype(dtype), biases)


def _codes(block: Block, tensor: SourceTensor) -> _Codes:
    weight, zeros, scales = block[:3]
    bits = 32 * zeros.shape[1] // 4 // tensor.rows
    scale = floats(decode(scales, tensor.arrays[2].dtype))
    if tensor.kind == AWQ:
        return _Codes(_in_order(_split(weight, bits)), _in_order(_split(zeros, bits)), scale)
    words = weight.view("<u4")  # [in * bits / 32, out]: the codes of a word lie below one another
    ins = np.stack([(words >> np.uint32(shift)).astype(np.uint8) for shift in range(0, 32, bits)], axis=1)
    stored = _split(zeros, bits) if tensor.kind == GPTQ_V2 else _split(zeros, bits) + np.uint8(1)
    mask = np.uint8((1 << bits) - 1)
    return _Codes(ins.reshape(-1, words.shape[1]) & mask, stored & mask, scale)


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
