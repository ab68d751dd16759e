"""Reads the arrays of a converted folder."""

import json
from pathlib import Path

import mlx.core as mx


def arrays(folder: Path) -> dict[str, mx.array]:
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    found = {}
    for file in set(index["weight_map"].values()):
        found |= mx.load(str(folder / file))
    assert set(found) == set(index["weight_map"])
    return found
