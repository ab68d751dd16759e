"""Weights in FP8 with scales, decoded in float32: w = e4m3 * scale."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mistral_mlx.kernels.fallback.packing import decode, floats

from .rows import Bytes, Floats, Rows, Storage, Stored, Weights, read, read_whole

KIND = "F8_E4M3"


@dataclass(frozen=True)
class Fp8(Storage):
    """One code for each weight, and a scale for every block of `span` rows and `width` columns."""

    weight: Stored
    scales: Stored
    span: int
    width: int

    @property
    def label(self) -> str:
        return KIND

    @property
    def arrays(self) -> tuple[Stored, ...]:
        return (self.weight, self.scales)

    @property
    def dtype(self) -> str:
        return self.scales.dtype

    @property
    def unit(self) -> int:
        return self.span if self.span < self.weight.rows else 1

    def blocks(self, step: int) -> Iterator[Rows]:
        scales = floats(decode(read_whole(self.scales), self.scales.dtype))  # [rows / span, columns / width]
        for i, codes in enumerate(read(self.weight, step)):
            first, last = i * step // self.span, -(-(i * step + len(codes)) // self.span)
            yield Fp8Rows(codes, scales[first:last], self.span, self.width)


@dataclass(frozen=True)
class Fp8Rows(Rows):
    """Rows of a Fp8."""

    codes: Bytes
    scales: Floats
    span: int
    width: int

    @property
    def n_rows(self) -> int:
        return len(self.codes)

    def weights(self) -> Weights:
        n_rows, n_columns = self.codes.shape
        scales = np.repeat(self.scales, min(self.span, n_rows), axis=0)[:n_rows]
        scales = np.repeat(scales, min(self.width, n_columns), axis=1)[:, :n_columns]
        with np.errstate(invalid="ignore", over="ignore"):  # a damaged scale makes NaN or infinity, which is told later
            found: Floats = E4M3[self.codes] * scales
        return Weights.of(found)


def _table() -> Floats:
    """Return the value of every code: a sign, 4 bits of exponent with a bias of 7, 3 bits of mantissa, no infinity."""
    codes = np.arange(256)
    exponent, mantissa = codes >> 3 & 15, codes & 7
    magnitude = np.where(exponent > 0, np.ldexp(8 + mantissa, exponent - 10), np.ldexp(mantissa, -9))
    magnitude[codes & 127 == 127] = np.nan
    return np.where(codes < 128, magnitude, -magnitude).astype(np.float32)


E4M3 = _table()
