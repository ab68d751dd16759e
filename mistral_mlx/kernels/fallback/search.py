"""Searches for better scales and biases with NumPy: reference and fallback of `search.h`."""

from typing import NamedTuple

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

LINES = 2  # number of rounded lines to try
CLEARLY = 1 - 1e-5  # a smaller error counts only if it is below this share: sums are rounded

# Widths of the range that the codes cover, as shares of the range of a group, by bits.
WIDTHS = {
    2: np.linspace(0.5, 0.85, 5),
    3: np.linspace(0.74, 1.0, 5),
    4: np.linspace(0.87, 1.03, 5),
    5: np.linspace(0.94, 1.05, 5),
    6: np.linspace(0.98, 1.05, 5),
    8: np.linspace(0.995, 1.02, 5),
}


class Lines(NamedTuple):
    """Scale, bias and codes of each group: ``weight ~ scale * code + bias``."""

    scales: Floats  # [groups, 1]
    biases: Floats  # [groups, 1]
    codes: Floats  # [groups, group]


class _Fit(NamedTuple):
    scales: Floats
    mean_codes: Floats
    explained: Floats  # share of the weights' variance


def improve(weights: Floats, importance: Floats, lines: Lines, *, bits: int, dtype: mx.Dtype) -> Lines:
    """Return `lines`, or better ones with a smaller sum of importance * (w - unpacked)^2.

    All arrays are ``[groups, group]``. Groups that hold NaN or infinity, or only one value, stay as they are.
    """
    most_code = np.float32(2**bits - 1)
    low, high = weights.min(-1, keepdims=True), weights.max(-1, keepdims=True)
    middle = low + (high - low) / 2
    centred = weights - middle
    mean = _sum(importance * centred) / _sum(importance)
    best = _Fit(*np.zeros((3, len(weights), 1), np.float32))
    for width in WIDTHS[bits]:
        steps = centred / ((high - low) * np.float32(width)) * most_code + most_code / 2
        fit = _fit(centred, importance, mean, _codes(steps, bits))
        best = _Fit(*(np.where(fit.explained > best.explained, new, old) for new, old in zip(fit, best, strict=True)))
    least = _error(weights, importance, lines) * CLEARLY
    for _ in range(LINES):
        scales = _rounded(best.scales, dtype)
        biases = _rounded(middle + mean - scales * best.mean_codes, dtype)
        tried = Lines(scales, biases, _codes((weights - biases) / scales, bits))
        error = _error(weights, importance, tried)
        better = (scales > 0) & (error < least)
        lines = Lines(*(np.where(better, new, old) for new, old in zip(tried, lines, strict=True)))
        least = np.where(better, error, least)
        best = _fit(centred, importance, mean, tried.codes)
    return lines


def _fit(centred: Floats, importance: Floats, mean: Floats, codes: Floats) -> _Fit:
    """Return the weighted least squares fit of the weights to `codes`."""
    mean_codes = _sum(importance * codes) / _sum(importance)
    variance = _sum(importance * (codes - mean_codes) ** 2)
    covariance = _sum(importance * (codes - mean_codes) * (centred - mean))
    return _Fit(covariance / variance, mean_codes, covariance**2 / variance)


def _codes(steps: Floats, bits: int) -> Floats:
    return np.clip(np.rint(steps), 0, 2**bits - 1).astype(np.float32)


def _error(weights: Floats, importance: Floats, lines: Lines) -> Floats:
    return _sum(importance * (weights - (lines.scales * lines.codes + lines.biases)) ** 2)


def _sum(values: Floats) -> Floats:
    total: Floats = values.sum(-1, keepdims=True)
    return total


def _rounded(values: Floats, dtype: mx.Dtype) -> Floats:
    return np.asarray(mx.array(values).astype(dtype).astype(mx.float32))
