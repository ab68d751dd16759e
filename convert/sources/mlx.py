"""The tensors of an MLX folder, which is converted already: a packed weight with its scales and biases is one."""

from collections.abc import Mapping

from mistral_mlx.convert.storage.mlx import Mlx
from mistral_mlx.convert.storage.rows import FLOAT_KINDS
from mistral_mlx.errors import CheckpointError, shown
from mistral_mlx.files.safetensors import TensorEntry
from mistral_mlx.model.blocks import stacked_path
from mistral_mlx.model.packing import Packing, QuantizationArgs

from .entries import plain_tensor, stored
from .source import SourceTensor

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
            tensors[name] = _packed(path, entries, quantization.of(stacked_path(path)))
        elif f"{path}.weight" not in entries:
            raise CheckpointError(f"tensor {shown(name)} has no weight beside it")
    return tensors


def _packed(path: str, entries: Mapping[str, TensorEntry], packing: Packing) -> SourceTensor:
    name = f"{path}.weight"
    entry = entries[name]
    if entry.dtype != "U32" or len(entry.shape) != 2 or entry.shape[1] * 32 % packing.bits:
        raise CheckpointError(
            f"tensor {shown(entry.name)} is {entry.dtype} {list(entry.shape)}, which {packing.bits} bits cannot be"
        )
    rows, columns = entry.shape[0], entry.shape[1] * 32 // packing.bits
    grouped = (rows, columns // packing.group_size)
    weight, parts = stored(entry, name), []
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
        parts.append(stored(beside, name))
    storage = Mlx(weight, parts[0], parts[1] if parts[1:] else None, packing)
    return SourceTensor(name, (rows, columns), storage)
