"""Writes a GGUF file with all matrices of one kind."""

from pathlib import Path

import numpy as np
from helpers.convert_sources import CONFIG, add_weights, close, gguf_writer, random_weights


def plain(
    path: Path,
    kind: str = "F32",
    *,
    config: dict[str, object] = CONFIG,
    architecture: str = "llama",
    rope_factors: list[float] | None = None,
    **keys: object,
) -> Path:
    """Write a file with all matrices of one type, and the given keys of the architecture."""
    writer = gguf_writer(path, config, architecture=architecture)
    if rope_factors:
        writer.add_tensor("rope_freqs.weight", np.array(rope_factors, np.float32))
    for key, value in keys.items():
        add = (
            writer.add_string
            if isinstance(value, str)
            else writer.add_uint32
            if isinstance(value, int)
            else writer.add_float32
        )
        add(f"{architecture}.{key.replace('__', '.')}", value)
    add_weights(writer, random_weights(config), kind, config)
    return close(writer)
