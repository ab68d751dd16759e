"""A checkpoint as a list of tensors on disk and the bytes of their rows; knows nothing of where it was found.

Weights are read with plain file reads in blocks of rows: the pages of a memory map would count as this process's
memory, and a block bounds what is held however large a tensor is.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mistral_mlx.errors import CheckpointError, shown

BLOCK_WEIGHTS = 1024 * 1024  # 2 MB in bfloat16: the few blocks that are held at a time stay in the processor's cache

FLOAT_KINDS = ("F32", "F16", "BF16")
PACKED_KINDS = ("Q4_0", "Q4_1", "Q8_0")  # GGUF's; blocks of 32 weights along a row

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class SourceTensor:
    """One tensor of the source: what it is called in the target, how it is stored, and where."""

    name: str  # as Hugging Face spells it
    kind: str  # one of FLOAT_KINDS or PACKED_KINDS
    shape: tuple[int, ...]  # in weights, whatever the storage
    file: Path
    start: int  # bytes from the beginning of the file
    nbytes: int
    rotary_dim: int | None = None  # head_dim, if llama.cpp reordered the rows of every head

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
    notes: tuple[str, ...] = ()

    @property
    def nbytes(self) -> int:
        """The bytes all weights take."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    @property
    def is_packed(self) -> bool:
        """Whether any weight is stored quantized."""
        return any(tensor.kind in PACKED_KINDS for tensor in self.tensors.values())


def read_blocks(tensor: SourceTensor) -> Iterator[Bytes]:
    """Yield the stored rows of `tensor` in order as bytes [rows of the block, bytes of a row].

    Raises CheckpointError if the file ends before the tensor does.
    """
    row_nbytes = tensor.nbytes // tensor.rows
    unit = tensor.rotary_dim or 1  # heads are put back in order whole
    step = max(1, BLOCK_WEIGHTS // (tensor.columns * unit)) * unit
    with tensor.file.open("rb", buffering=0) as file:
        file.seek(tensor.start)
        for first in range(0, tensor.rows, step):
            block = np.empty((min(step, tensor.rows - first), row_nbytes), dtype=np.uint8)
            _fill(file, block, tensor)
            yield block if tensor.rotary_dim is None else restore_rotary(block, tensor.rotary_dim)


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
                f"{shown(tensor.file.name)} ended while {shown(tensor.name)} was read; it changed meanwhile"
            )
        filled += count
