"""A stored tensor as the converter sees it: what each format must offer, and reading rows from a file.

Weights are read with plain file reads in blocks of rows: the pages of a memory map would count as this process's
memory, and a block bounds what is held however large a tensor is.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import NamedTuple

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from mistral_mlx.errors import CheckpointError, shown
from mistral_mlx.kernels.fallback.packing import decode, floats
from mistral_mlx.model.packing import Packing

FLOAT_KINDS = ("F32", "F16", "BF16")

Array = npt.NDArray[np.generic]
Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Stored:
    """An array in a file, its rows one after another."""

    tensor: str  # that it belongs to, for messages
    file: Path
    start: int  # bytes from the beginning of the file
    rows: int
    row_nbytes: int
    dtype: str = ""  # of its items, as safetensors spells it; "" where the format says

    @property
    def nbytes(self) -> int:
        """The bytes it takes."""
        return self.rows * self.row_nbytes


@dataclass(frozen=True)
class Weights:
    """Rows of plain weights."""

    raw: Bytes  # [rows, columns * bytes of an item]
    dtype: str  # one of FLOAT_KINDS

    @classmethod
    def of(cls, values: Floats) -> "Weights":
        """Return float32 weights ``[rows, columns]``."""
        return cls(np.ascontiguousarray(values).view(np.uint8), "F32")

    def array(self) -> mx.array:
        """Return them in their dtype, ``[rows, columns]``."""
        return decode(self.raw, self.dtype)

    def floats(self) -> Floats:
        """Return them in float32, ``[rows, columns]``."""
        return self.raw.view("<f4") if self.dtype == "F32" else floats(self.array())


class Packed(NamedTuple):
    """Rows of a weight as MLX packs it."""

    weight: Array  # uint32 [rows, columns * bits / 32]
    scales: Array  # [rows, columns / group size]
    biases: Array | None  # as the scales; None in the float modes

    @property
    def parts(self) -> tuple[Array, ...]:
        """The arrays in the order of their tensors in the target."""
        return (self.weight, self.scales) if self.biases is None else (self.weight, self.scales, self.biases)


class Rows(ABC):
    """Some rows of a tensor, as they were read."""

    @property
    @abstractmethod
    def n_rows(self) -> int:
        """How many rows of the tensor these are."""

    @abstractmethod
    def weights(self) -> Weights:
        """Unpack them."""

    def affine(self, dtype: str) -> Packed:
        """Return the same weights as `Storage.exact` packs them, scales and biases in `dtype`.

        Raises CheckpointError if a scale is not finite or does not fit `dtype`.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot be carried over to {dtype}")


class Storage(ABC):
    """How one tensor is stored."""

    @property
    @abstractmethod
    def label(self) -> str:
        """The name of the format, for people."""

    @property
    @abstractmethod
    def arrays(self) -> tuple[Stored, ...]:
        """The arrays in the files that hold the tensor."""

    @property
    def dtype(self) -> str | None:
        """Which of FLOAT_KINDS the weights have, or else their scales; None if the format has no such dtype."""
        return None

    @property
    def is_plain(self) -> bool:
        """Whether the weights are stored as they are, in `dtype`."""
        return False

    @property
    def is_target_form(self) -> bool:
        """Whether MLX can load the tensor as it is stored."""
        return False

    @property
    def exact(self) -> Packing | None:
        """How MLX packs the very same weights; None if it cannot."""
        return None

    @property
    def exact_dtypes(self) -> tuple[str, ...]:
        """The dtypes that `exact` may have for scales and biases, the usual one first."""
        return ()

    @property
    def nearest(self) -> Packing | None:
        """Where `exact` is None: a packing whose extra error is small next to the format's own."""
        return None

    @property
    def unit(self) -> int:
        """Rows must be read in multiples of this, except at the end."""
        return 1

    @property
    def nbytes(self) -> int:
        """The bytes it takes in the files."""
        return sum(array.nbytes for array in self.arrays)

    @abstractmethod
    def blocks(self, step: int) -> Iterator[Rows]:
        """Yield the rows in order, `step` at a time; `step` is a multiple of `unit`.

        Raises CheckpointError if a file ends before the tensor does.
        """

    def loss(self, dtype: str) -> str:
        """Return what carrying the tensor over with scales in `dtype` loses, to follow "are carried over"; or ""."""
        del dtype
        return ""


@dataclass(frozen=True)
class Wrapped(Storage):
    """A storage whose rows are those of another one, changed."""

    base: Storage

    @property
    def label(self) -> str:
        return self.base.label

    @property
    def arrays(self) -> tuple[Stored, ...]:
        return self.base.arrays

    @property
    def dtype(self) -> str | None:
        return self.base.dtype

    @property
    def is_plain(self) -> bool:
        return self.base.is_plain

    @property
    def is_target_form(self) -> bool:
        return self.base.is_target_form

    @property
    def exact(self) -> Packing | None:
        return self.base.exact

    @property
    def exact_dtypes(self) -> tuple[str, ...]:
        return self.base.exact_dtypes

    @property
    def nearest(self) -> Packing | None:
        return self.base.nearest

    @property
    def unit(self) -> int:
        return self.base.unit

    def loss(self, dtype: str) -> str:
        return self.base.loss(dtype)


@dataclass(frozen=True)
class OneArray(Storage):
    """A tensor that is one array of a format which `kind` names."""

    array: Stored
    kind: str

    @property
    def label(self) -> str:
        return self.kind

    @property
    def arrays(self) -> tuple[Stored, ...]:
        return (self.array,)


def read(array: Stored, step: int) -> Iterator[Bytes]:
    """Yield the rows of `array` in order, `step` at a time, as bytes.

    Raises CheckpointError if the file ends before the array does.
    """
    with array.file.open("rb", buffering=0) as file:
        file.seek(array.start)
        for start in range(0, array.rows, step):
            block = np.empty((min(step, array.rows - start), array.row_nbytes), np.uint8)
            _fill(file, block, array.tensor)
            yield block


def read_whole(array: Stored) -> Bytes:
    """Return all rows of `array`, as bytes. Raises as `read` does."""
    return next(read(array, array.rows))


def _fill(file: FileIO, block: Bytes, tensor: str) -> None:
    view = block.reshape(-1).data
    filled = 0
    while filled < len(view):
        count = file.readinto(view[filled:])
        if not count:
            raise CheckpointError(f"{shown(str(file.name))} ended while {shown(tensor)} was read; it changed meanwhile")
        filled += count
