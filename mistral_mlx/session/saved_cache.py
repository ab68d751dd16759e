"""Saves and loads the cache of a session as a safetensors file: the rows in use of each layer.

Position p lies in slot p, or in slot ``p % M`` of a ring (`model/cache.py`). The metadata name the layout, the bits,
windows and sinks of the layers, and how many positions each layer had written: a ring that went
back a few tokens has overwritten more than its position tells.
"""

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import mlx.core as mx
import numpy as np

from mistral_mlx import kernels
from mistral_mlx.errors import CheckpointError, SessionError, shown
from mistral_mlx.files.safetensors import header_bytes, read_header
from mistral_mlx.kernels.dtypes import DTYPE_NAMES, MLX_DTYPES
from mistral_mlx.model.args import ModelArgs
from mistral_mlx.model.cache import RollingBufferCache, make_cache
from mistral_mlx.model.cache_options import without_choice

PARTS = ("keys", "values")
BLOCK_BYTES = 1 << 20
CODES = "I8"  # the dtype of keys and values in 8 bits
LAYOUT = "2"  # in 1, a ring had no more slots than its window


def saved_nbytes(layers: Sequence[RollingBufferCache]) -> int:
    """Return the bytes of the rows in use."""
    return sum(layer.nbytes * layer.n_rows // layer.keys.shape[2] for layer in layers if layer.keys is not None)


def computed_by() -> str:
    """Return the name of the kernels and of their arithmetic: others compute other last bits of keys and values."""
    return f"{kernels.names().partition(',')[0]}, {'exact' if kernels.exact() else 'rotated'}"


def write_cache(
    file: BinaryIO, layers: Sequence[RollingBufferCache], ids: Sequence[int], more: Mapping[str, str] | None = None
) -> int:
    """Write the rows in use, and return the CRC-32 of the file and of the token ids `ids` in the cache.

    `more` are metadata of the caller's.
    """
    tensors = {f"{i}.{part}": _in_use(layer, part) for i, layer in enumerate(layers) for part in PARTS}
    reserved = json.dumps([layer.reserved for layer in layers])
    metadata = {**(more or {}), "layout": LAYOUT, "rings": _rings(layers), "reserved": reserved}
    header = header_bytes(
        {name: (DTYPE_NAMES.get(tensor.dtype, CODES), tensor.shape) for name, tensor in tensors.items()}, metadata
    )
    crc = 0
    for data in (header, *map(_bytes, tensors.values())):
        file.write(data)
        crc = zlib.crc32(data, crc)
    return _with_ids(ids, crc)


def read_cache(path: Path, args: ModelArgs, ids: Sequence[int], crc: int) -> list[RollingBufferCache] | None:
    """Return the cache of the token ids `ids` that `write_cache` wrote to `path`.

    None for another dtype, layout, number of bits, window or number of sinks.

    Raises SessionError if the file is damaged, or is not the cache of such a model and of these ids. Past a window
    the shape does not tell how many ids there were.
    """
    offset = len(ids)
    try:
        entries = read_header(path)
        if _with_ids(ids, _crc32(path)) != crc:
            raise SessionError(f"{shown(path.name)} is damaged: its checksum differs; {_remedy(path)}")
        arrays, metadata = mx.load(str(path), format="safetensors", return_metadata=True)
        assert isinstance(arrays, dict) and isinstance(metadata, dict)
        mx.eval(arrays)
    except (CheckpointError, OSError, RuntimeError, ValueError) as error:
        raise SessionError(f"{shown(str(error), limit=200)}; {_remedy(path)}") from error
    layers = make_cache(args)
    own = _rings(make_cache(without_choice(args)))  # all that there was when files did not name it
    if metadata.get("layout") != LAYOUT or metadata.get("rings", own) != _rings(layers):
        return None
    row = kernels.row_elements(args.head_dim, args.kv_bits)
    expected: dict[str, tuple[int, ...]] = {}
    for i, layer in enumerate(layers):
        rows = layer.sinks + (offset if layer.size is None else min(offset, layer.size))
        expected |= {f"{i}.{part}": (1, args.n_kv_heads, rows, row) for part in PARTS}
    dtypes = {entry.dtype for entry in entries.values()}
    if {name: entry.shape for name, entry in entries.items()} != expected or len(dtypes) != 1:
        raise SessionError(f"{shown(path.name)} does not hold the cache of this model; {_remedy(path)}")
    if not dtypes <= ({CODES} if args.kv_bits == 8 else set(MLX_DTYPES)):
        return None
    for i, (layer, reserved) in enumerate(zip(layers, checked_reserved(metadata, path, layers, offset), strict=True)):
        layer.restore(arrays[f"{i}.keys"], arrays[f"{i}.values"], offset, reserved)
    return layers


def _rings(layers: Sequence[RollingBufferCache]) -> str:
    return json.dumps([[layer.kv_bits, layer.window, layer.sinks] for layer in layers])


def checked_reserved(
    metadata: Mapping[str, str], path: Path, layers: Sequence[RollingBufferCache], offset: int
) -> list[int]:
    """Return how many positions each of the `layers` had written. Raises SessionError if the file does not say so."""
    try:
        numbers = json.loads(metadata.get("reserved", ""))
    except (ValueError, RecursionError):
        numbers = None
    if (
        not isinstance(numbers, list)
        or len(numbers) != len(layers)
        or any(type(n) is not int or n < offset for n in numbers)
        or not all(layer.keeps(offset, n) for layer, n in zip(layers, numbers, strict=True))
    ):
        raise SessionError(f"{shown(path.name)} does not say what its rings hold; {_remedy(path)}")
    return numbers


def _remedy(path: Path) -> str:
    return f"delete {shown(str(path), limit=200)}, and the conversation is read again"


def _in_use(layer: RollingBufferCache, part: str) -> mx.array:
    buffer = layer.keys if part == "keys" else layer.values
    assert buffer is not None
    return buffer[:, :, : layer.n_rows]


def _bytes(tensor: mx.array) -> bytes:
    return np.array(mx.contiguous(tensor).view(mx.uint8)).tobytes()


def _with_ids(ids: Sequence[int], crc: int) -> int:
    return zlib.crc32(json.dumps([*ids]).encode(), crc)


def _crc32(path: Path) -> int:
    crc = 0
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            crc = zlib.crc32(block, crc)
    return crc
