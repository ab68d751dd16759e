"""Weights as MLX packs them: what a folder holds that is converted already."""

from collections.abc import Iterator
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from mistral_mlx.kernels.fallback.packing import decode, floats
from mistral_mlx.model.packing import Packing

from .rows import Bytes, Floats, Packed, Rows, Storage, Stored, Weights, read


@dataclass(frozen=True)
class Mlx(Storage):
    """A packed weight with its scales, and its biases in the affine mode."""

    weight: Stored
    scales: Stored
    biases: Stored | None
    packing: Packing

    @property
    def label(self) -> str:
        return "MLX"

    @property
    def arrays(self) -> tuple[Stored, ...]:
        return (self.weight, self.scales) if self.biases is None else (self.weight, self.scales, self.biases)

    @property
    def dtype(self) -> str | None:
        return None if self.biases is None else self.biases.dtype

    @property
    def is_target_form(self) -> bool:
        return True

    @property
    def exact(self) -> Packing:
        return self.packing

    @property
    def exact_dtypes(self) -> tuple[str, ...]:
        return (self.dtype or "BF16",)  # the float modes have no dtype of their own

    def blocks(self, step: int) -> Iterator["MlxRows"]:
        for parts in zip(*(read(array, step) for array in self.arrays), strict=True):
            weight, scales, *biases = parts
            yield MlxRows(weight, scales, biases[0] if biases else None, self)

    def numbers(self, step: int) -> Iterator[tuple[Floats, Floats]]:
        """Yield scales and biases ``[rows, groups]`` of `step` rows at a time, in float32; of the affine mode alone."""
        assert self.biases is not None
        for scales, biases in zip(read(self.scales, step), read(self.biases, step), strict=True):
            yield floats(decode(scales, self.scales.dtype)), floats(decode(biases, self.biases.dtype))


@dataclass(frozen=True)
class MlxRows(Rows):
    """Rows of a Mlx."""

    weight: Bytes
    scales: Bytes
    biases: Bytes | None
    storage: Mlx

    @property
    def n_rows(self) -> int:
        return len(self.weight)

    def weights(self) -> Weights:
        bits, group_size, mode = self.storage.packing
        weight, biases = mx.array(self.weight.view("<u4")), None
        scales = mx.array(self.scales)
        if self.biases is not None:
            scales, biases = (mx.array(part) for part in self.numbers())
        found = mx.dequantize(weight, scales, biases, group_size, bits, mode, dtype=mx.float32)
        return Weights.of(np.asarray(found))

    def numbers(self) -> tuple[Floats, Floats]:
        """Return scales and biases ``[rows, groups]`` in float32; of the affine mode alone."""
        assert self.biases is not None and self.storage.dtype is not None
        scales = floats(decode(self.scales, self.storage.scales.dtype))
        return scales, floats(decode(self.biases, self.storage.dtype))

    def affine(self, dtype: str) -> Packed:
        del dtype  # they are taken over as they are
        return Packed(self.weight, self.scales, self.biases)
