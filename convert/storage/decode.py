"""Stored rows as plain weights or in MLX's form, whatever they are stored as; knows nothing of files."""

import numpy as np
import numpy.typing as npt

from mistral_mlx.convert.sources import fp8, mlx
from mistral_mlx.convert.sources.source import FLOAT_KINDS, Block, Bytes, SourceTensor
from mistral_mlx.kernels.fallback.packing import decode, floats

from . import gptq, packed
from .low_rank import merge

UNPACKERS = {mlx.KIND: mlx.unpack, fp8.KIND: fp8.unpack, **dict.fromkeys(gptq.KINDS, gptq.unpack)}


def plain(block: Block, tensor: SourceTensor) -> tuple[Bytes, str]:
    """Return stored rows of `tensor`, updated, as those of plain weights, and which of FLOAT_KINDS these are."""
    own = len(tensor.arrays)
    rows, kind = _unpacked(block[:own], tensor)
    if tensor.update is None:
        return rows, kind
    return merge(floats(decode(rows, kind)), block[own:]).view(np.uint8), "F32"


def _unpacked(block: Block, tensor: SourceTensor) -> tuple[Bytes, str]:
    if tensor.kind in FLOAT_KINDS:
        return block[0], tensor.kind
    if tensor.kind in UNPACKERS:
        return np.ascontiguousarray(UNPACKERS[tensor.kind](block, tensor)).view(np.uint8), "F32"
    return _from_gguf(block[0], tensor.kind), "F32"


def repack(block: Block, tensor: SourceTensor, dtype: npt.DTypeLike) -> packed.Packed:
    """Return stored rows of a `tensor` that has a packing in MLX's form; see `packed.repack`."""
    if tensor.kind in gptq.KINDS:
        return gptq.repack(block, tensor, dtype)
    return packed.repack(block, tensor, dtype)


def _from_gguf(rows: Bytes, kind: str) -> Bytes:
    from gguf import GGMLQuantizationType, quants  # slow to import, and for GGUF alone

    with np.errstate(all="ignore"):  # a damaged scale makes NaN or infinity, which is told later
        return np.ascontiguousarray(quants.dequantize(rows, GGMLQuantizationType[kind])).view(np.uint8)
