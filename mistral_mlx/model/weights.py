"""The tensors of a checkpoint as arrays: mapped or read, and held in the forms that the device computes with."""

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_unflatten

from mistral_mlx import kernels
from mistral_mlx.errors import ModelError, shown
from mistral_mlx.files.safetensors import TensorEntry
from mistral_mlx.kernels.dtypes import MLX_DTYPES
from mistral_mlx.kernels.fallback.float_modes import HELD_BITS, unpack

from .args import ModelArgs
from .mistral import Mistral
from .packing import Packing

STORED_DTYPES = {**MLX_DTYPES, "U32": mx.uint32, "U8": mx.uint8}  # and packed codes, and scales of the float modes


def quantize_modules(model: Mistral, names: Iterable[str]) -> None:
    """Replace a module by its packed form where `names`, those of the tensors, have scales for it."""
    modules = dict(model.named_modules())
    quantization = model.args.quantization
    paths = [name.removesuffix(".scales") for name in names if name.endswith(".scales")]
    if quantization is not None:
        found = [(path, held_as(quantization.of(path))) for path in paths]
        packed = [(path, modules[path].quantized(packing)) for path, packing in found if packing is not None]
        model.update_modules(tree_unflatten(packed))


def held_as(packing: Packing) -> Packing | None:
    """Return how weights that are stored so are held in memory; None is plain."""
    if packing.mode == "affine" or not kernels.on_cpu():
        return packing
    return Packing(8, packing.group_size) if packing.mode == "mxfp4" else None


def held_nbytes(name: str, entry: TensorEntry, args: ModelArgs) -> int:
    """Return the bytes a tensor takes in memory; the scales of what is unpacked are counted with the weight."""
    path, _, part = name.rpartition(".")
    packing = args.quantization.of(path) if args.quantization else None
    if packing is None or held_as(packing) == packing or entry.dtype not in ("U32", "U8"):
        return entry.nbytes
    return entry.nbytes * HELD_BITS[packing.mode] // packing.bits if part == "weight" else 0


def held(weights: dict[str, mx.array], args: ModelArgs) -> dict[str, mx.array]:
    """Return the weights as `held_as` says, taking what is unpacked out of `weights` one by one."""
    paths = [name.removesuffix(".scales") for name in weights if name.endswith(".scales")]
    for path in paths:
        assert args.quantization is not None
        packing = args.quantization.of(path)
        if held_as(packing) != packing:
            parts = unpack(packing.mode, weights[f"{path}.weight"], weights.pop(f"{path}.scales"))
            weights |= zip((f"{path}.{part}" for part in ("weight", "scales", "biases")), parts, strict=False)
    return weights


def read_tensors(entries: Mapping[str, TensorEntry], *, all: bool = True) -> dict[str, mx.array]:
    """Return the tensors, nothing of them in memory yet; a file is opened once.

    With `all`, mapped files are read ahead whole. Raises ModelError if a file cannot be read.
    """
    files: dict[Path, dict[str, TensorEntry]] = {}
    for name, entry in entries.items():
        files.setdefault(entry.file, {})[name] = entry
    read = partial(_map, all=all) if kernels.maps_files() else _open
    weights: dict[str, mx.array] = {}
    for path, found in files.items():
        try:
            weights |= read(path, found)
        except (OSError, RuntimeError, ValueError) as error:
            raise ModelError(f"{shown(path.name)} cannot be read: {shown(str(error))}") from error
    return weights


def _map(path: Path, entries: dict[str, TensorEntry], *, all: bool) -> dict[str, mx.array]:
    """Return arrays over the file. Embedding rows are looked up by MLX itself, which wants aligned items: else read.

    MLX is among the writers that begin the data at any byte.
    """
    unaligned = {
        name: entry
        for name, entry in entries.items()
        if name.startswith("model.embed_tokens.") and entry.start % STORED_DTYPES[entry.dtype].size
    }
    mapped = {name: entry for name, entry in entries.items() if name not in unaligned}
    parts = [(entry.start, entry.shape, STORED_DTYPES[entry.dtype]) for entry in mapped.values()]
    weights = dict(zip(mapped, kernels.map_tensors(path, parts, all=all), strict=True))
    return weights | _open(path, unaligned) if unaligned else weights


def _open(path: Path, entries: dict[str, TensorEntry]) -> dict[str, mx.array]:
    arrays = mx.load(str(path), format="safetensors")
    assert isinstance(arrays, dict), type(arrays)
    return {name: arrays[entry.name] for name, entry in entries.items()}
