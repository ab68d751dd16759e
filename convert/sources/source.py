"""A checkpoint as a list of tensors on disk and the bytes of their rows; knows nothing of where it was found.

Weights are read with plain file reads in blocks of rows: the pages of a memory map would count as this process's
memory, and a block bounds what is held however large a tensor is.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mistral_mlx.convert.storage.low_rank import LowRank
from mistral_mlx.errors import CheckpointError, shown
from mistral_mlx.model.args import Packing

BLOCK_WEIGHTS = 1024 * 1024  # 2 MB in bfloat16: the few blocks that are held at a time stay in the processor's cache

FLOAT_KINDS = ("F32", "F16", "BF16")

Bytes = npt.NDArray[np.uint8]
# The same rows of every array of a tensor, [rows, bytes of a row] each, and then what its update takes for them.
Block = tuple[Bytes, ...]


class Stored(NamedTuple):
    """An array on the disk, its rows one after another."""

    file: Path
    start: int  # bytes from the beginning of the file
    rows: int
    row_nbytes: int
    span: int = 1  # rows of the tensor that share one of these
    dtype: str = ""  # of its items, as safetensors spells it, where the tensor's kind does not say
    width: int = 1  # columns of the tensor that share one of its items, where the kind does not say

    @property
    def nbytes(self) -> int:
        """The bytes it takes."""
        return self.rows * self.row_nbytes


@dataclass(frozen=True)
class SourceTensor:
    """One tensor of the source: what it is called in the target, how it is stored, and where."""

    name: str  # as Hugging Face spells it
    kind: str  # one of FLOAT_KINDS, or what `decode` knows how to unpack
    shape: tuple[int, ...]  # in weights, whatever the storage
    arrays: tuple[Stored, ...]  # the weight, and what may belong to it: scales, biases
    packing: Packing | None = None  # how MLX packs the very same weights, if it can
    nearest: Packing | None = None  # if it cannot: what costs little beside what the storage has cost already
    rotary_dim: int | None = None  # head_dim, if the rows of every head lie in pairs
    row_unit: int = 1  # rows that cannot be read without one another, but for the last ones
    update: LowRank | None = None  # of an adapter, to be merged

    @property
    def nbytes(self) -> int:
        """The bytes it takes in the source."""
        return sum(array.nbytes for array in self.arrays)

    @property
    def path(self) -> str:
        """The module it belongs to."""
        return self.name.removesuffix(".weight")

    @property
    def rows(self) -> int:
        """How many rows are stored one after another; a vector is one row."""
        return self.shape[0] if len(self.shape) == 2 else 1

    @property
    def columns(self) -> int:
        """How many weights a row has."""
        return self.shape[-1]

    @property
    def size(self) -> int:
        """How many weights there are."""
        return self.rows * self.columns


@dataclass(frozen=True)
class Source:
    """A whole checkpoint, opened but not read."""

    path: Path
    config: Mapping[str, object]  # as in Hugging Face's config.json
    tensors: Mapping[str, SourceTensor]
    files: Mapping[str, Path | bytes]  # tokenizer and other small files for the target
    tokenizer_ids: int | None  # one more than the largest token id; None without a tokenizer
    keeps_dtypes: bool = False  # what is not packed stays in its own dtype unless another is asked for
    adapted: bool = False  # whether an adapter is to be merged
    notes: tuple[str, ...] = ()

    @property
    def nbytes(self) -> int:
        """The bytes all weights take."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    @property
    def is_packed(self) -> bool:
        """Whether MLX can pack any weight just as it is stored."""
        return any(tensor.packing or tensor.nearest for tensor in self.tensors.values())


def read_blocks(tensor: SourceTensor) -> Iterator[Block]:
    """Yield the stored rows of `tensor` in order, those of all its arrays together.

    Raises CheckpointError if a file ends before the tensor does, or an update cannot be used.
    """
    unit = math.lcm(tensor.rotary_dim or 1, tensor.row_unit)  # heads are put back in order whole
    step = max(1, BLOCK_WEIGHTS // (tensor.columns * unit)) * unit
    blocks = zip(*(_read_rows(tensor, array, step) for array in tensor.arrays), strict=True)
    if tensor.update is None:
        yield from blocks
    else:
        for block, factors in zip(blocks, tensor.update.blocks(step, tensor.rows), strict=True):
            yield (*block, *factors)


def _read_rows(tensor: SourceTensor, array: Stored, step: int) -> Iterator[Bytes]:
    """Yield what `array` has for every `step` rows of `tensor`; all of it if that is one step."""
    with array.file.open("rb", buffering=0) as file:
        for start in range(0, tensor.rows, step):
            stop = min(start + step, tensor.rows)
            first, last = start // array.span, -(-stop // array.span)
            if step >= tensor.rows:
                last = array.rows
            block = np.empty((last - first, array.row_nbytes), dtype=np.uint8)
            file.seek(array.start + first * array.row_nbytes)
            _fill(file, block, tensor)
            yield restore_rotary(block, tensor.rotary_dim) if tensor.rotary_dim and array.span == 1 else block


def restore_rotary(rows: Bytes, head_dim: int) -> Bytes:
    """Return the rows of whole heads in Hugging Face's order.

    Hugging Face turns row i of a head together with row i + head_dim/2, llama.cpp rows 2i and 2i + 1: its converter
    stores a head of rows 0 1 2 3 4 5 as 0 3 1 4 2 5. Whole rows move, so packed rows can be moved alike.
    """
    heads = rows.reshape(-1, head_dim // 2, 2, rows.shape[-1])  # [heads * Dh, bytes] -> [heads, Dh/2, 2, bytes]
    return np.ascontiguousarray(heads.swapaxes(1, 2)).reshape(
        rows.shape
    )  # [heads, 2, Dh/2, bytes] -> [heads * Dh, bytes]


def _fill(file: FileIO, block: Bytes, tensor: SourceTensor) -> None:
    view = block.reshape(-1).data
    filled = 0
    while filled < len(view):
        count = file.readinto(view[filled:])
        if not count:
            raise CheckpointError(
                f"{shown(str(file.name))} ended while {shown(tensor.name)} was read; it changed meanwhile"
            )
        filled += count
