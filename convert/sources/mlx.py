"""Weights that MLX has packed, as they lie in a folder that is converted already, and unpacked again."""

from collections.abc import Mapping

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from mistral_mlx.errors import CheckpointError, shown
from mistral_mlx.files.safetensors import TensorEntry
from mistral_mlx.kernels.fallback.packing import decode
from mistral_mlx.model.args import Packing, QuantizationArgs

from .entries import plain_tensor, stored
from .source import FLOAT_KINDS, Block, Bytes, SourceTensor

KIND = "MLX"
PARTS = ("scales", "biases")


def is_packed(config: Mapping[str, object], entries: Mapping[str, TensorEntry]) -> bool:
    """Whether the folder says, or shows, that MLX has packed its weights."""
    rule = config.get("quantization") or config.get("quantization_config")
    return bool(rule) or any(name.endswith(".scales") for name in entries)


def packed_tensors(config: Mapping[str, object], entries: Mapping[str, TensorEntry]) -> dict[str, SourceTensor]:
    """Return all tensors, a weight together with its scales and biases.

    Raises ConfigError or CheckpointError if config.json and tensors do not fit each other.
    """
    quantization = QuantizationArgs.from_config(config)
    paths = {name.removesuffix(".scales") for name in entries if name.endswith(".scales")}
    if quantization is None:
        raise CheckpointError(f"{shown(min(paths))} has scales, but config.json has no quantization")
    if not paths:
        raise CheckpointError("config.json has a quantization, but no tensor has scales; they do not belong together")
    tensors = {}
    for name, entry in entries.items():
        path, _, part = name.rpartition(".")
        if path not in paths or part not in ("weight", *PARTS):
            tensors[name] = plain_tensor(entry, name)
        elif part == "weight":
            tensors[name] = _packed(path, entries, quantization.of(path))
        elif f"{path}.weight" not in entries:
            raise CheckpointError(f"tensor {shown(name)} has no weight beside it")
    return tensors


def _packed(path: str, entries: Mapping[str, TensorEntry], packing: Packing) -> SourceTensor:
    entry = entries[f"{path}.weight"]
    if entry.dtype != "U32" or len(entry.shape) != 2 or entry.shape[1] * 32 % packing.bits:
        raise CheckpointError(
            f"tensor {shown(entry.name)} is {entry.dtype} {list(entry.shape)}, which {packing.bits} bits cannot be"
        )
    rows, columns = entry.shape[0], entry.shape[1] * 32 // packing.bits
    grouped = (rows, columns // packing.group_size)
    arrays = [stored(entry)]
    for part in PARTS if packing.mode == "affine" else PARTS[:1]:
        beside = entries.get(f"{path}.{part}")
        if beside is None:
            raise CheckpointError(f"tensor {shown(f'{path}.{part}')} is missing")
        dtypes = FLOAT_KINDS if packing.mode == "affine" else ("U8",)
        if beside.shape != grouped or columns % packing.group_size or beside.dtype not in dtypes:
            raise CheckpointError(
                f"tensor {shown(beside.name)} is {beside.dtype} {list(beside.shape)}; {' or '.join(dtypes)} "
                f"{list(grouped)} belong to {packing.bits} bits in groups of {packing.group_size}"
            )
        arrays.append(stored(beside))
    return SourceTensor(entry.name, KIND, (rows, columns), tuple(arrays), packing)


def unpack(block: Block, tensor: SourceTensor) -> npt.NDArray[np.float32]:
    """Return the weights of stored rows, computed in float32."""
    assert tensor.packing is not None
    bits, group_size, mode = tensor.packing
    weight, biases = mx.array(block[0].view("<u4")), None
    if mode == "affine":
        scales, biases = (_float32(b, array.dtype) for b, array in zip(block[1:], tensor.arrays[1:], strict=True))
    else:
        scales = mx.array(block[1])
    found = mx.dequantize(weight, scales, biases, group_size, bits, mode, dtype=mx.float32)
    return np.asarray(found)


def _float32(rows: Bytes, dtype: str) -> mx.array:
    return decode(rows, dtype).astype(mx.float32)
