"""Cases for the entry points of the native kernels."""

from pathlib import Path
from random import Random

import mlx.core as mx
from fuzz.mutations import NUMBERS
from fuzz.reader import Reader

from mistral_mlx import kernels


class Kernels(Reader):
    """The native entry points, with shapes that do not fit."""

    expected = (ValueError, RuntimeError, TypeError, OSError)

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self.file = place / "x"
        self.file.write_bytes(bytes(4096))

    def __call__(self, rng: Random) -> None:
        if rng.random() < 0.5:
            self._map(rng)
        else:
            self._multiply(rng)

    def _map(self, rng: Random) -> None:
        shape = tuple(rng.choice((1, 2, 3, 64, 1024, *NUMBERS)) for _ in range(rng.randrange(4)))
        start = rng.choice((0, 1, 100, 4095, 4096, *NUMBERS, -1))
        dtype = rng.choice((mx.float32, mx.float16, mx.uint32))
        for array in kernels.map_tensors(self.file, [(start, shape, dtype)]):
            mx.eval(array.sum() if array.ndim else array + 0)

    def _multiply(self, rng: Random) -> None:
        small = (1, 2, 4, 8, 16, 32, 64, 96, 128)
        dtypes = (mx.float32, mx.float16, mx.bfloat16, mx.uint32)
        n, k, groups = rng.choice(small), rng.choice(small), rng.choice(small)
        bits, group_size = rng.choice((2, 3, 4, 5, 6, 8, 7, 0, -4)), rng.choice((32, 64, 128, 0, -32, 48))
        words = max(1, k * abs(bits) // 32) if rng.random() < 0.8 else rng.choice(small)
        weight = mx.zeros((n, words), mx.uint32 if rng.random() < 0.9 else mx.float32)
        scales = mx.zeros((n, max(1, k // 32) if rng.random() < 0.7 else groups), rng.choice(dtypes))
        biases = mx.zeros(scales.shape if rng.random() < 0.8 else (n, groups), rng.choice((scales.dtype, *dtypes)))
        x = mx.zeros((rng.choice((1, 3)), k if rng.random() < 0.8 else rng.choice(small)))
        packed = kernels.Weight(weight, scales, biases, group_size, bits)
        plain = kernels.Weight(mx.zeros((n, k), rng.choice(dtypes)))
        mx.eval(kernels.products(x, [rng.choice((packed, plain))]))
