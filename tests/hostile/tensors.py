"""Changes safetensors files for the hostile set."""

import json
import math
import os
import struct
from collections.abc import Callable
from pathlib import Path

from hostile.case import WEIGHTS, Change

from mistral_mlx.files.safetensors import ITEM_BITS


def split(path: Path) -> tuple[bytes, bytes]:
    """Return the header and the data of a safetensors file."""
    content = path.read_bytes()
    end = 8 + struct.unpack("<Q", content[:8])[0]
    return content[8:end], content[end:]


def join(path: Path, text: bytes, data: bytes) -> None:
    """Write a safetensors file."""
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def header(change: Callable[[dict], object], name: str = "model.safetensors") -> Change:
    """Change the header of a safetensors file."""

    def apply(folder: Path) -> None:
        text, data = split(folder / name)
        value = json.loads(text)
        change(value)
        join(folder / name, json.dumps(value).encode(), data)

    return apply


def raw_header(old: bytes, new: bytes) -> Change:
    """Replace bytes in the header of model.safetensors."""

    def apply(folder: Path) -> None:
        text, data = split(folder / "model.safetensors")
        assert old in text, old
        join(folder / "model.safetensors", text.replace(old, new, 1), data)

    return apply


def retyped(name: str, dtype: str) -> Change:
    """Store a float32 tensor in two bytes a number, the rest of the file being as it was."""

    def apply(folder: Path) -> None:
        text, data = split(folder / "model.safetensors")
        value, parts, end = json.loads(text), [], 0
        value.pop("__metadata__", None)
        for key, entry in sorted(value.items(), key=lambda item: item[1]["data_offsets"]):
            start, stop = entry["data_offsets"]
            part = data[start:stop][: (stop - start) // 2] if key == name else data[start:stop]
            entry["data_offsets"] = [end, end + len(part)]
            entry["dtype"] = dtype if key == name else entry["dtype"]
            end += len(part)
            parts.append(part)
        join(folder / "model.safetensors", json.dumps(value).encode(), b"".join(parts))

    return apply


def content(name: str, shape: tuple[int, ...], dtype: str = "F32", item: bytes = b"", file: str = WEIGHTS) -> Change:
    """Store a tensor of this shape, filled with `item`, in the place of the one called `name` or beside the others."""

    def apply(folder: Path) -> None:
        text, data = split(folder / file)
        value, parts, end = json.loads(text), [], 0
        value.pop("__metadata__", None)
        value.setdefault(name, {"data_offsets": [len(data), len(data)]})
        for key, entry in sorted(value.items(), key=lambda pair: pair[1]["data_offsets"]):
            part = data[slice(*entry["data_offsets"])]
            if key == name:
                nbytes = math.prod(shape) * ITEM_BITS[dtype] // 8
                part = (item * (1 + nbytes // len(item)) if item else bytes(nbytes))[:nbytes]
                entry.update(dtype=dtype, shape=list(shape))
            entry["data_offsets"] = [end, end := end + len(part)]
            parts.append(part)
        join(folder / file, json.dumps(value).encode(), b"".join(parts))

    return apply


def large(*tensors: tuple[str, str, tuple[int, ...]], file: str = WEIGHTS) -> Change:
    """Add tensors (name, dtype, shape) of zeros that take no room on the disk."""

    def apply(folder: Path) -> None:
        text, data = split(folder / file)
        value, end = json.loads(text), len(data)
        for name, dtype, shape in tensors:
            start, end = end, end + math.prod(shape) * ITEM_BITS[dtype] // 8
            value[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
        join(folder / file, json.dumps(value).encode(), data)
        os.truncate(folder / file, (folder / file).stat().st_size + end - len(data))

    return apply


def without(*names: str, file: str = WEIGHTS) -> Change:
    """Store a safetensors file anew without some tensors."""

    def apply(folder: Path) -> None:
        text, data = split(folder / file)
        value, parts, end = json.loads(text), [], 0
        value.pop("__metadata__", None)
        for key, entry in sorted(value.items(), key=lambda pair: pair[1]["data_offsets"]):
            if key in names:
                del value[key]
                continue
            parts.append(data[slice(*entry["data_offsets"])])
            entry["data_offsets"] = [end, end := end + len(parts[-1])]
        join(folder / file, json.dumps(value).encode(), b"".join(parts))

    return apply
