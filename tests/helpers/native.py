"""Returns the sets of kernels that this CPU can run, and random operands for them."""

import mlx.core as mx
import numpy as np

from mistral_mlx.kernels import native

SETS = native.ext.sets() if native.built else []


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def packed(n_out, n_in, group_size, bits, dtype, seed=0):
    arrays = mx.quantize(mx.array(normal(n_out, n_in, seed=seed)).astype(dtype), group_size, bits)
    floats = [a.astype(mx.float32) for a in arrays[1:]]
    return arrays, np.array(mx.dequantize(arrays[0], *floats, group_size, bits), np.float64)
