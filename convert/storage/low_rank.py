"""A low-rank update of a weight, merged while the weight is read.

LoRA (arxiv.org/abs/2106.09685):  W' = W + scale * B A
DoRA (arxiv.org/abs/2402.09353):  W' = m * (W + scale * B A) / |W + scale * B A|, the norm that of an output row
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mistral_mlx.errors import CheckpointError, shown
from mistral_mlx.files.safetensors import TensorEntry
from mistral_mlx.kernels.fallback.packing import decode, floats
from mistral_mlx.model.packing import Packing

from .rows import Floats, Rows, Weights, Wrapped


@dataclass(frozen=True)
class Factor:
    """A tensor of an adapter."""

    entry: TensorEntry
    transposed: bool = False  # whether it is stored the other way round

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape, when turned the right way."""
        return self.entry.shape[::-1] if self.transposed else self.entry.shape

    def load(self) -> Floats:
        """Read it. Raises CheckpointError if it holds NaN or infinity, or its file has changed."""
        entry = self.entry
        raw = np.fromfile(entry.file, np.uint8, entry.nbytes, offset=entry.start)
        if raw.nbytes != entry.nbytes:
            raise CheckpointError(f"{shown(entry.file.name)} ended while {shown(entry.name)} was read")
        found = floats(decode(raw, entry.dtype)).reshape(entry.shape)
        if not np.isfinite(found).all():
            raise CheckpointError(f"the adapter's tensor {shown(entry.name)} holds NaN or infinity; fetch it again")
        return np.ascontiguousarray(found.T if self.transposed else found)


@dataclass(frozen=True)
class LowRank:
    """An update of a weight [out, in]."""

    left: Factor  # B: [out, r]
    right: Factor  # A: [r, in]
    scale: float
    magnitude: Factor | None = None  # m of DoRA: [out]

    def blocks(self, step: int) -> Iterator["Factors"]:
        """Yield what every `step` rows of the weight take. Raises CheckpointError as `Factor.load` does."""
        left, right = self.left.load(), self.right.load()
        with np.errstate(over="ignore"):  # an infinity is refused where the weights are looked at
            left *= np.float32(self.scale)
        magnitude = self.magnitude.load().reshape(-1, 1) if self.magnitude else None
        for start in range(0, len(left), step):
            own = slice(start, start + step)
            yield Factors(left[own], right, None if magnitude is None else magnitude[own])


class Factors(NamedTuple):
    """What some rows of a weight take."""

    left: Floats  # scale * B: [rows, r]
    right: Floats  # A: [r, in]
    magnitude: Floats | None  # m of DoRA: [rows, 1]

    def merged(self, weights: Floats) -> Floats:
        """Return the rows ``[rows, in]`` with the update added, in float32."""
        with np.errstate(all="ignore"):  # a row of zeros has no direction: NaN, which is refused, as infinities are
            merged: Floats = weights + self.left @ self.right
            if self.magnitude is not None:
                merged *= self.magnitude / np.linalg.norm(merged, axis=1, keepdims=True)
        return merged


@dataclass(frozen=True)
class Updated(Wrapped):
    """A storage whose weights are merged with an update, and therefore not those that are stored."""

    update: LowRank

    @property
    def exact(self) -> None:
        return None

    @property
    def nearest(self) -> Packing | None:
        return self.base.exact or self.base.nearest

    def blocks(self, step: int) -> Iterator[Rows]:
        for rows, factors in zip(self.base.blocks(step), self.update.blocks(step), strict=True):
            yield UpdatedRows(rows, factors)


@dataclass(frozen=True)
class UpdatedRows(Rows):
    """Rows of an Updated."""

    base: Rows
    factors: Factors

    @property
    def n_rows(self) -> int:
        return self.base.n_rows

    def weights(self) -> Weights:
        return Weights.of(self.factors.merged(self.base.weights().floats()))
