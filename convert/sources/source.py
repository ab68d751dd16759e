"""A checkpoint to convert: its tensors, its config, and the small files that go with it."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mistral_mlx.convert.storage.joined import Joined
from mistral_mlx.convert.storage.rows import Rows, Storage
from mistral_mlx.model.args import ModelArgs
from mistral_mlx.model.blocks import expert_path

BLOCK_WEIGHTS = 1024 * 1024  # 2 MB in bfloat16: the few blocks that are held at a time stay in the processor's cache


@dataclass(frozen=True)
class SourceTensor:
    """One tensor of the source."""

    name: str  # as Hugging Face spells it
    shape: tuple[int, ...]  # in weights, whatever the storage
    storage: Storage

    @property
    def nbytes(self) -> int:
        """The bytes it takes in the source."""
        return self.storage.nbytes

    @property
    def path(self) -> str:
        """The module it belongs to."""
        return self.name.removesuffix(".weight")

    @property
    def rows(self) -> int:
        """How many rows are stored one after another, those of all experts; a vector is one row."""
        return math.prod(self.shape[:-1])

    @property
    def columns(self) -> int:
        """How many weights a row has."""
        return self.shape[-1]

    @property
    def size(self) -> int:
        """How many weights there are."""
        return self.rows * self.columns

    def matrices(self) -> list["SourceTensor"]:
        """Return the matrices of a tensor of all experts one by one; else the tensor alone."""
        if not isinstance(self.storage, Joined):
            return [self]
        parts = enumerate(self.storage.parts)
        return [SourceTensor(f"{expert_path(self.path, e)}.weight", self.shape[1:], part) for e, part in parts]

    def blocks(self, unit: int = 1) -> Iterator[Rows]:
        """Yield the rows in order, a multiple of `unit` at a time.

        Raises CheckpointError if a file ends before the tensor does, or an adapter's update cannot be used.
        """
        return self.storage.blocks(self.step(unit))

    def step(self, unit: int = 1) -> int:
        """Return how many rows make a block: about BLOCK_WEIGHTS, and a multiple of `unit` and of the storage's."""
        unit = math.lcm(unit, self.storage.unit)
        return max(1, BLOCK_WEIGHTS // (self.columns * unit)) * unit


@dataclass(frozen=True)
class Source:
    """A whole checkpoint, opened but not read."""

    path: Path
    config: Mapping[str, object]  # as in Hugging Face's config.json
    args: ModelArgs  # what it says
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
        return any(tensor.storage.exact or tensor.storage.nearest for tensor in self.tensors.values())
