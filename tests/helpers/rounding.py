"""Rounds activations as the contract of the CPU kernels says, in NumPy: see mistral_mlx/kernels/src/contract.h."""

import numpy as np

FINE_LIMIT, COARSE_LIMIT = 32639, 127
TRANSFORM_BITS = {1: (), 4: (8, 16), 8: (4, 8, 16), 16: (1, 4, 8, 16)}  # of the number of an input, by points


def points_of(bits, exact):
    return 1 if exact or bits == 8 else {5: 8, 6: 4}.get(bits, 16)


def rotated(values, points):
    """The Walsh-Hadamard transform of runs of 32 along the last axis, one stage after the other."""
    runs = values.reshape(*values.shape[:-1], -1, 32).copy()
    for bit in TRANSFORM_BITS[points]:
        first = [k for k in range(32) if not k & bit]
        second = [k | bit for k in first]
        a, b = runs[..., first].copy(), runs[..., second].copy()
        runs[..., first], runs[..., second] = a + b, a - b
    return runs.reshape(values.shape)


def rounded(x, group_size, bits, *, exact=False):
    """Return float32 ``[rows, K]`` as int64 codes and float32 scales ``[rows, K / group_size]``."""
    points = points_of(bits, exact)
    limit = FINE_LIMIT if points == 1 else COARSE_LIMIT
    turned = rotated(x * np.float32(1 / points), points).reshape(len(x), -1, group_size)
    largest = np.abs(turned).max(axis=-1)
    small = largest < np.float32(1e-30)
    inverse = np.where(small, np.float32(0), np.float32(limit) / np.where(small, np.float32(1), largest))
    codes = np.rint(turned * inverse[..., None]).astype(np.int64).reshape(x.shape)
    scales = np.where(small, np.float32(0), largest / np.float32(limit)).astype(np.float32)
    return rotated(codes, points), scales


def rounded_values(x, group_size, bits, *, exact=False):
    """Return what the codes stand for, float64 ``[rows, K]``: what the weights are multiplied by."""
    codes, scales = rounded(x, group_size, bits, exact=exact)
    return codes * scales.astype(np.float64).repeat(group_size, axis=-1)
