"""Writes a GGUF file with all matrices of one kind."""

from pathlib import Path

from helpers.convert_sources import CONFIG, add_weights, close, gguf_writer, random_weights


def plain(path: Path, kind: str = "F32", *, config: dict[str, object] = CONFIG, **keys: object) -> Path:
    """Write a file with all matrices of one type, and the given llama.* keys."""
    writer = gguf_writer(path, config)
    for key, value in keys.items():
        add = (
            writer.add_string
            if isinstance(value, str)
            else writer.add_uint32
            if isinstance(value, int)
            else writer.add_float32
        )
        add(f"llama.{key.replace('__', '.')}", value)
    add_weights(writer, random_weights(config), kind, config)
    return close(writer)
