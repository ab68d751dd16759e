"""Rotary positions (Su et al., RoFormer, 2021): the angle that each pair of a head turns per position.

Pair i of a head is the elements i and ``i + Dh/2``. Frequencies are float64: float32 would move the angles of far
positions. At position 100,000 a relative error of 6e-8 is an error of 0.006 radians.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mistral_mlx.kernels import Rotation

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Yarn:
    """Slow pairs turn `factor` times more slowly, fast ones as they were, with a ramp between (Peng et al., 2023).

    A pair is fast that turns `beta_fast` times in `original` positions, and slow if only `beta_slow` times.
    """

    factor: float
    original: int  # positions that the model was trained for before
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float = 1.0  # of cosines and sines, which lengthens queries and keys
    truncate: bool = True  # whether the ramp begins and ends at a whole pair

    def scaled(self, frequencies: Floats, base: float) -> Floats:
        """Return what plain `frequencies` of `base` become."""
        n_pairs = len(frequencies)
        low, high = (self._pair(beta, 2 * n_pairs, base) for beta in (self.beta_fast, self.beta_slow))
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, 2 * n_pairs - 1)
        high += 0.001 if low == high else 0
        slow: Floats = np.clip((np.arange(n_pairs) - low) / (high - low), 0, 1)
        return frequencies * (slow / self.factor + (1 - slow))

    def _pair(self, turns: float, head_dim: int, base: float) -> float:
        """Return the number of the pair, not a whole one, that turns so many times in `original` positions."""
        return head_dim * (math.log(self.original) - math.log(turns) - math.log(2 * math.pi)) / (2 * math.log(base))


@dataclass(frozen=True)
class Llama3:
    """Pairs that turn less than `low` times in `original` positions turn `factor` times more slowly (Llama 3.1, 2024).

    Those that turn more than `high` times are left alone, with a ramp between.
    """

    factor: float
    low: float
    high: float
    original: int  # positions that the model was trained for before

    def scaled(self, frequencies: Floats, base: float) -> Floats:
        """Return what plain `frequencies` become."""
        del base  # they say it all
        with np.errstate(over="ignore"):  # of a base near 0
            turns = self.original * frequencies / (2 * math.pi)  # in `original` positions
        kept: Floats = np.clip((turns - self.low) / (self.high - self.low), 0, 1)
        return frequencies * ((1 - kept) / self.factor + kept)


def inverse_frequencies(head_dim: int, base: float) -> Floats:
    """Return the radians per position of each pair, ``base^(-2i / Dh)``, ``[Dh/2]``."""
    return np.array([_power(base, -2.0 * i / head_dim) for i in range(head_dim // 2)])


def rotation(head_dim: int, base: float, scaling: Yarn | Llama3 | None = None) -> Rotation:
    """Return the rotation of RoPE as it was published, or scaled for longer contexts."""
    frequencies = inverse_frequencies(head_dim, base)
    if scaling is None:
        return Rotation(frequencies, base=base)
    factor = scaling.attention_factor if isinstance(scaling, Yarn) else 1.0
    return Rotation(scaling.scaled(frequencies, base), factor)


def attention_factor(factor: float, multiplier: float = 1.0) -> float:
    """Return YaRN's length of queries and keys for a context `factor` times as long."""
    return 1.0 if factor <= 1 else 0.1 * multiplier * math.log(factor) + 1.0


def _power(base: float, exponent: float) -> float:
    """Return ``base^exponent`` as C computes it; NumPy may round it differently."""
    try:
        return math.pow(base, exponent)
    except OverflowError:
        return math.inf
