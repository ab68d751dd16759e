"""The parts of a GGUF file that was split as llama-gguf-split does: NAME-00001-of-00003.gguf and so on.

Every part is a GGUF file of its own, with its number and their count; the first has the model's metadata.
"""

import re
from pathlib import Path

from mistral_mlx.errors import CheckpointError, shown
from mistral_mlx.files.folder import ModelFolder

from .header import GGUFHeader, read_gguf_header

PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf", re.ASCII | re.DOTALL)


def is_later_part(name: str) -> bool:
    """Whether a file of this name continues another one."""
    match = PART.fullmatch(name)
    return match is not None and int(match[2]) > 1


def read_parts(path: Path) -> list[tuple[Path, GGUFHeader]]:
    """Return the headers of the GGUF file at `path` and of the parts beside it, in their order.

    Raises CheckpointError if a part is missing or does not belong to the others.
    """
    header = read_gguf_header(path)
    count = header.metadata.get("split.count", 0)
    if count in (0, 1):
        return [(path, header)]
    match = PART.fullmatch(path.name)
    if match is None or int(match[3]) != count:
        raise CheckpointError(
            f"{shown(path.name)} is one of {shown(count)} parts, but not named like NAME-00001-of-00003.gguf; "
            "give the parts their names back, or join them with llama-gguf-split --merge"
        )
    names = [f"{match[1]}-{i + 1:05d}-of-{match[3]}.gguf" for i in range(int(match[3]))]
    folder = ModelFolder(path.parent)
    missing = [name for name in names if not folder.has(name)]
    if missing:
        others = f" and {len(missing) - 1} more" if missing[1:] else ""
        raise CheckpointError(f"{shown(missing[0])}{others} is missing; the GGUF file has {count} parts")
    files = [folder.file(name) for name in names]
    parts: list[tuple[Path, GGUFHeader]] = []
    for file in files:
        parts.append((file, read_gguf_header(file, items=parts[-1][1].items if parts else 0)))
    _check(parts)
    return parts


def _check(parts: list[tuple[Path, GGUFHeader]]) -> None:
    for i, (path, header) in enumerate(parts):
        found = (header.metadata.get("split.no"), header.metadata.get("split.count"))
        if found != (i, len(parts)):
            raise CheckpointError(
                f"{shown(path.name)} says that it is part {shown(found[0])} of {shown(found[1])}, "
                f"counted from 0; it belongs to another file"
            )
    total = parts[0][1].metadata.get("split.tensors.count")
    n_tensors = sum(len(header.tensors) for _, header in parts)
    if total != n_tensors:
        raise CheckpointError(f"split.tensors.count is {shown(total)}, but the parts hold {n_tensors:,} tensors")
