"""The file of a kept prompt: a cache as a session saves it, and in its metadata the ids that it holds, and whose it is.

The name of the file has a digest of the first ids, so that a look at the folder finds the few files that a prompt may
take up, and the checksum of the whole file. Files are untrusted data.
"""

import base64
import hashlib
import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mistral_mlx.errors import CheckpointError, SessionError, shown
from mistral_mlx.files.safetensors import read_metadata
from mistral_mlx.files.whole import new_file, partial_path, sync_folder
from mistral_mlx.generation.snapshots import MIN_KEPT
from mistral_mlx.model.args import ModelArgs
from mistral_mlx.model.cache import RollingBufferCache, make_cache
from mistral_mlx.model.cache_options import DEFAULT, CacheOptions
from mistral_mlx.version import __version__

from .saved_cache import LAYOUT, checked_reserved, computed_by, read_cache, write_cache

MAX_HEADER_BYTES = 4 * 1024 * 1024  # 600,000 ids and 1,000 layers
FORMAT = b"kept prompt 1"  # files of another format have other names
NAME = re.compile(r"[0-9a-f]{16}-[0-9a-f]{16}-([0-9a-f]{8})\.safetensors", re.ASCII)  # beginning, key, CRC-32


@dataclass(frozen=True)
class Owner:
    """What a kept prompt must have in common with a run that takes it up."""

    model: str  # its fingerprint
    made_by: str


@dataclass(frozen=True)
class KeptEntry:
    """What the header of a file says. `name` is the model's as the user called it."""

    path: Path
    owner: Owner
    name: str
    ids: list[int]
    metadata: dict[str, str]

    def layers(self, args: ModelArgs) -> list[RollingBufferCache]:
        """Return the caches without their keys and values, which tell how far they can go back.

        Raises SessionError if they cannot be those of such a model.
        """
        layers = make_cache(args)
        numbers = checked_reserved(self.metadata, self.path, layers, len(self.ids))
        for layer, reserved in zip(layers, numbers, strict=True):
            layer.offset, layer.reserved = len(self.ids), reserved
        return layers

    def read(self, args: ModelArgs) -> list[RollingBufferCache] | None:
        """Return the caches; None for another layout. Raises SessionError if the file is damaged."""
        match = NAME.fullmatch(self.path.name)
        assert match is not None, self.path
        return read_cache(self.path, args, self.ids, int(match[1], 16))


def made_by(args: ModelArgs) -> str:
    """Return the name of what computes and writes here: with another kernel or program the last bits may differ.

    It names what was chosen of the cache, too, which is no part of a model's fingerprint.
    """
    choice = CacheOptions.of(args)
    return f"{computed_by()}, {__version__}, layout {LAYOUT}" + ("" if choice == DEFAULT else f", {choice}")


def beginning_of(ids: Sequence[int]) -> str:
    """Return how the names of all files begin whose ids begin with the first `MIN_KEPT` of `ids`."""
    return hashlib.sha256(FORMAT + _packed(ids[:MIN_KEPT])).hexdigest()[:16]


def write_entry(
    folder: Path,
    owner: Owner,
    name: str,
    ids: Sequence[int],
    layers: list[RollingBufferCache],
    make_room: Callable[[int], None],
) -> Path:
    """Write the file of `ids`, which `layers` hold, and return its path. Call `make_room` with its bytes before that.

    Raises OSError; then nothing is left.
    """
    key = hashlib.sha256("\n".join([owner.model, owner.made_by, ""]).encode() + _packed(ids)).hexdigest()[:16]
    stem = f"{beginning_of(ids)}-{key}"
    metadata = {
        "fingerprint": owner.model,
        "made_by": owner.made_by,
        "name": shown(name, limit=200),
        "ids": base64.b64encode(_packed(ids)).decode(),
    }
    partial = partial_path(folder / stem)
    try:
        with new_file(partial) as file:
            crc = write_cache(file, layers, ids, metadata)
        make_room(partial.stat().st_size)
        path = partial.replace(folder / f"{stem}-{crc:08x}.safetensors")
        sync_folder(folder)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise
    return path


def read_entry(path: Path) -> KeptEntry:
    """Return what the header of the file at `path` says; its tensors are not looked at.

    Raises SessionError if `write_entry` cannot have written it.
    """
    try:
        metadata = read_metadata(path, max_nbytes=MAX_HEADER_BYTES)
        owner, ids = Owner(metadata["fingerprint"], metadata["made_by"]), _unpacked(metadata["ids"])
        if len(ids) < MIN_KEPT or not path.name.startswith(beginning_of(ids)):
            raise ValueError(f"its {len(ids)} ids are not those of its name")
        return KeptEntry(path, owner, shown(metadata["name"], limit=200), ids, metadata)
    except (CheckpointError, OSError, KeyError, ValueError) as error:
        raise SessionError(f"{shown(path.name)} is no kept prompt: {shown(str(error), limit=200)}") from error


def is_entry(file: os.DirEntry[str]) -> bool:
    """Whether `file` is a regular file with the name of a kept prompt. Raises OSError."""
    return NAME.fullmatch(file.name) is not None and file.is_file(follow_symlinks=False)


def _packed(ids: Sequence[int]) -> bytes:
    return np.array(ids, "<u4").tobytes()


def _unpacked(text: str) -> list[int]:
    """Return the ids. Raises ValueError."""
    ids: list[int] = np.frombuffer(base64.b64decode(text, validate=True), "<u4").tolist()
    return ids
