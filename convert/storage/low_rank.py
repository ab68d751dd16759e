"""A low-rank update of a weight, and adding it to blocks of rows; knows nothing of adapters' names and configs.

LoRA (arxiv.org/abs/2106.09685):  W' = W + scale * B A
DoRA (arxiv.org/abs/2402.09353):  W' = m * (W + scale * B A) / |W + scale * B A|, the norm that of an output row
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mistral_mlx.errors import CheckpointError, shown
from mistral_mlx.files.safetensors import TensorEntry
from mistral_mlx.kernels.fallback.packing import decode, floats

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


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

    def blocks(self, step: int, rows: int) -> Iterator[tuple[Bytes, ...]]:
        """Yield what every `step` of the `rows` take in `merge`: their scaled rows of B, A, their magnitudes."""
        left, right = self.left.load(), self.right.load()
        with np.errstate(over="ignore"):  # an infinity is refused where the weights are looked at
            left *= np.float32(self.scale)
        magnitude = self.magnitude.load().reshape(-1, 1) if self.magnitude else None
        for start in range(0, rows, step):
            own = slice(start, start + step)
            parts = (left[own], right) if magnitude is None else (left[own], right, magnitude[own])
            yield tuple(part.view(np.uint8) for part in parts)


def merge(weights: Floats, factors: tuple[Bytes, ...]) -> Floats:
    """Return the rows [rows, in] with what `LowRank.blocks` gave for them added, in float32."""
    left, right, *magnitude = (factor.view("<f4") for factor in factors)
    with np.errstate(all="ignore"):  # a row of zeros has no direction: NaN, which is refused, as infinities are
        merged: Floats = weights + left @ right
        if magnitude:
            merged *= magnitude[0] / np.linalg.norm(merged, axis=1, keepdims=True)
    return merged
