"""Query and key weights whose rows lie in pairs, as Mistral's own files and GGUF have them."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from .rows import Packed, Rows, Weights, Wrapped

T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True)
class PairedHeads(Wrapped):
    """A storage whose rows are put into Hugging Face's order."""

    head_dim: int

    @property
    def unit(self) -> int:
        return math.lcm(self.head_dim, self.base.unit)  # heads are put into order whole

    def blocks(self, step: int) -> Iterator[Rows]:
        return (PairedRows(rows, self.head_dim) for rows in self.base.blocks(step))


@dataclass(frozen=True)
class PairedRows(Rows):
    """Rows of a PairedHeads."""

    base: Rows
    head_dim: int

    @property
    def n_rows(self) -> int:
        return self.base.n_rows

    def weights(self) -> Weights:
        weights = self.base.weights()
        return Weights(restore_rotary(weights.raw, self.head_dim), weights.dtype)

    def affine(self, dtype: str) -> Packed:
        weight, scales, biases = self.base.affine(dtype)
        assert biases is not None
        return Packed(*(restore_rotary(part, self.head_dim) for part in (weight, scales, biases)))


def restore_rotary(rows: npt.NDArray[T], head_dim: int) -> npt.NDArray[T]:
    """Return the rows of whole heads in Hugging Face's order.

    Hugging Face turns row i of a head together with row i + head_dim/2, llama.cpp rows 2i and 2i + 1: its converter
    stores a head of rows 0 1 2 3 4 5 as 0 3 1 4 2 5. Whole rows move, so packed rows can be moved alike.
    """
    heads = rows.reshape(-1, head_dim // 2, 2, rows.shape[-1])  # [heads * Dh, items] -> [heads, Dh/2, 2, items]
    ordered = np.ascontiguousarray(heads.swapaxes(1, 2))  # [heads, 2, Dh/2, items]
    return ordered.reshape(rows.shape)


def pair_rotary(rows: npt.NDArray[T], head_dim: int) -> npt.NDArray[T]:
    """Return the rows of whole heads in llama.cpp's order; undoes `restore_rotary`."""
    heads = rows.reshape(-1, 2, head_dim // 2, rows.shape[-1])  # [heads * Dh, items] -> [heads, 2, Dh/2, items]
    return np.ascontiguousarray(heads.swapaxes(1, 2)).reshape(rows.shape)
