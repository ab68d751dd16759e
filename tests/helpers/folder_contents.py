"""Reads the names and the bytes of the files of a folder."""

from pathlib import Path

WHOLE = ["config.json", "model.safetensors", "model.safetensors.index.json"]


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def content(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}
