"""Reads the tensors and the metadata of a GGUF file with the gguf library."""

from pathlib import Path

from gguf import GGUFReader


def tensors(path: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    found = GGUFReader(path).tensors
    return {t.name: (t.tensor_type.name, tuple(map(int, t.shape)), t.data.tobytes()) for t in found}


def metadata(path: Path) -> dict[str, object]:
    fields = GGUFReader(path).fields
    return {name: field.contents() for name, field in fields.items() if not name.startswith("GGUF.")}
