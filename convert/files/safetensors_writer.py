"""Writes tensors into safetensors shards of a planned layout, block by block.

All names, dtypes and shapes are known before the first byte, so each file starts with its final header.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mistral_mlx.files.safetensors import INDEX_NAME, ITEM_BITS, SINGLE_NAME, header_bytes

from .pipeline import Behind

SHARD_NBYTES = 5 * 1024**3  # as mlx-lm cuts


@dataclass(frozen=True)
class OutputTensor:
    """One tensor to be written."""

    name: str
    dtype: str  # safetensors' spelling
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """The bytes its data takes."""
        return math.prod(self.shape) * ITEM_BITS[self.dtype] // 8


def split_into_shards(tensors: Sequence[OutputTensor], limit: int) -> dict[str, list[OutputTensor]]:
    """Return the tensors of each file by its name, at most `limit` bytes in one unless a single tensor is larger."""
    shards: list[list[OutputTensor]] = []
    filled = 0
    for tensor in tensors:
        if not shards or filled + tensor.nbytes > limit:
            shards.append([])
            filled = 0
        shards[-1].append(tensor)
        filled += tensor.nbytes
    if len(shards) == 1:
        return {SINGLE_NAME: shards[0]}
    return {f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors": shard for i, shard in enumerate(shards)}


class ShardWriter:
    """Writes the shards of a checkpoint and their index into a folder; every tensor may be handed over in blocks."""

    def __init__(self, folder: Path, shards: Mapping[str, Sequence[OutputTensor]]) -> None:
        self._folder = folder
        self._shards = shards
        self._files: dict[str, FileIO] = {}
        self._place = {tensor.name: name for name, tensors in shards.items() for tensor in tensors}
        self._position: dict[str, int] = {}  # where the next block of each tensor goes
        self._end: dict[str, int] = {}
        self._writes = Behind()

    def append(self, name: str, block: npt.NDArray[np.generic]) -> None:
        """Write the next rows of the tensor `name`, soon; the block must not change until then.

        Raises OSError if this or an earlier block could not be written.
        """
        file = self._file(self._place[name])
        data = np.ascontiguousarray(block).reshape(-1).view(np.uint8).data
        assert self._position[name] + len(data) <= self._end[name], (name, block.shape)
        self._writes.submit(write_all, file, data, self._position[name])
        self._position[name] += len(data)

    def finish(self, total_parameters: int) -> None:
        """Put everything on the disk and write the index."""
        unfinished = [name for name in self._place if self._position.get(name) != self._end.get(name)]
        assert not unfinished, unfinished
        self._writes.wait()
        for file in self._files.values():
            os.fsync(file.fileno())
        self.close()
        total = sum(tensor.nbytes for tensors in self._shards.values() for tensor in tensors)
        index = {
            "metadata": {"total_size": total, "total_parameters": total_parameters},
            "weight_map": dict(sorted(self._place.items())),
        }
        write_file(self._folder / INDEX_NAME, json.dumps(index, indent=4).encode())

    def close(self) -> None:
        """Close the files, whole or not."""
        self._writes.close()
        for file in self._files.values():
            file.close()

    def _file(self, name: str) -> FileIO:
        if name not in self._files:
            file = self._files[name] = (self._folder / name).open("xb", buffering=0)
            write_all(file, memoryview(self._lay_out(self._shards[name])), 0)
        return self._files[name]

    def _lay_out(self, tensors: Sequence[OutputTensor]) -> bytes:
        """Return the header of a file and note where each of its tensors goes."""
        header = header_bytes({tensor.name: (tensor.dtype, tensor.shape) for tensor in tensors}, {"format": "mlx"})
        end = len(header)
        for tensor in tensors:
            self._position[tensor.name], end = end, end + tensor.nbytes
            self._end[tensor.name] = end
        return header


def write_file(path: Path, content: bytes) -> None:
    """Write a new file and put it on the disk."""
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_file(path: Path) -> None:
    """Put a file that was written by others on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def config_bytes(config: Mapping[str, object]) -> bytes:
    """Return config.json as mlx-lm writes it."""
    return json.dumps(dict(sorted(config.items())), indent=4).encode()


def write_all(file: FileIO, data: memoryview, position: int) -> None:
    """Write `data` at `position`, however many calls it takes."""
    while data:
        count = os.pwrite(file.fileno(), data, position)
        data, position = data[count:], position + count
