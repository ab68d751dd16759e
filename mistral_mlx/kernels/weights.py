"""What a product or a block is made of, as data."""

from typing import NamedTuple

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray


class Weight(NamedTuple):
    """A weight ``[N, K]``: plain, or packed if it has scales; on a CPU in MLX's affine form (see `float_modes`)."""

    weight: mx.array
    scales: mx.array | None = None  # [N, K / group_size]
    biases: mx.array | None = None  # of the affine mode alone
    group_size: int = 0
    bits: int = 0
    mode: str = "affine"

    def expert(self, e: int) -> "Weight":
        """Return the weight of one expert, where this is that of all, ``[experts, N, K]``."""
        scales, biases = (None if part is None else part[e] for part in (self.scales, self.biases))
        return self._replace(weight=self.weight[e], scales=scales, biases=biases)


class Norm(NamedTuple):
    """Root mean square normalization of the input of a product."""

    weight: mx.array  # [K]
    eps: float


class Rotation(NamedTuple):
    """Rotary positions as data: pair i of a head turns by ``position * frequencies[i]`` radians."""

    frequencies: NDArray[np.float64]  # [Dh/2], inverse frequencies: radians per position
    factor: float = 1.0  # multiplies every cosine and sine: the attention factor of YaRN
    base: float | None = None  # of plain frequencies, which MLX's own operation computes itself


class QueryScale(NamedTuple):
    """What queries are multiplied by after their rotation, ``1 + beta * ln(1 + floor(position / original))``.

    It makes up for softmax over more keys than the model was first trained for (Llama 4); 1 before `original`.
    """

    beta: float
    original: int

    def at(self, positions: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the factor at each position."""
        return 1 + self.beta * np.log(1 + positions // self.original)
