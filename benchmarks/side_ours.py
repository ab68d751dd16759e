"""Our side of a comparison: one model in this program answers requests (see common.py).

python benchmarks/side_ours.py FOLDER THREADS
"""

import sys
from dataclasses import replace
from typing import Any

import mlx.core as mx
import numpy as np
from common import serve, timed

from mistral_mlx import __version__, kernels
from mistral_mlx.generation.stream import prefill
from mistral_mlx.kernels import native
from mistral_mlx.model.cache import RollingBufferCache, make_cache
from mistral_mlx.model.loading import load_model

BANDWIDTH_NBYTES = 1 << 30  # beyond any cache
BANDWIDTH_REPEATS = 5  # of which the best is taken


class Ours:
    """The model, and the caches of the last requests: with the model's window or full, in 16 bits or 8."""

    def __init__(self, folder: str, threads: int) -> None:
        mx.set_default_device(mx.cpu)
        if native.available:
            native.ext.set_threads(threads)
        self.model = load_model(folder)
        self._caches: dict[tuple[bool, int], list[RollingBufferCache]] = {}
        self.cache = self._empty(full=False, kv_bits=16)  # of the last request

    def about(self) -> dict[str, Any]:
        """Say what runs."""
        return {"version": f"mistral-mlx {__version__}", "kernels": kernels.names()}

    def prefill(self, n: int, depth: int = 0, full: bool = False, kv_bits: int = 16) -> dict[str, Any]:
        """Time a prompt of `n` tokens at positions from `depth` on, up to the logits of its last token.

        With `full`, every token sees all before it, whatever the window of the model is.
        """
        self._go_to(depth, full=full, kv_bits=kv_bits)
        return timed(lambda: mx.eval(prefill(self.model, self._ids(n), self.cache)))

    def decode(self, n: int, depth: int = 0, full: bool = False, kv_bits: int = 16) -> dict[str, Any]:
        """Time `n` tokens one by one at positions from `depth` on, up to the logits; nothing is sampled."""
        self._go_to(depth, full=full, kv_bits=kv_bits)
        return timed(lambda: [mx.eval(self.model(mx.array([[token]]), self.cache)) for token in self._ids(n)])

    def cache_nbytes(self) -> dict[str, Any]:
        """Return the bytes of the cache, as allocated, and its position."""
        return {"nbytes": sum(layer.nbytes for layer in self.cache), "position": self.cache[0].offset}

    def full_cache_nbytes(self, depth: int) -> dict[str, Any]:
        """Return the bytes of a cache without windows: one layer is allocated and counted for all."""
        layer = RollingBufferCache(None)
        self._fill([layer], depth)
        return {"nbytes": layer.nbytes * len(self.cache)}

    def attention(self, n: int, window: int | None) -> dict[str, Any]:
        """Time the attention of one layer over a prompt of `n` tokens in one piece."""
        args = self.model.args
        q, k, v = (
            self._random((1, heads, n, args.head_dim)) for heads in (args.n_heads, args.n_kv_heads, args.n_kv_heads)
        )
        mx.eval(q, k, v)
        return timed(lambda: mx.eval(kernels.attention(q, k, v, scale=args.head_dim**-0.5, window=window)))

    def read_bandwidth(self) -> dict[str, Any]:
        """Measure how fast all threads together read memory, as the products read their weights."""
        if not native.available:
            raise SystemExit(f"the read bandwidth is measured by the native kernels: {native.missing}")
        return {"bytes_per_s": native.ext.read_bandwidth(BANDWIDTH_NBYTES, BANDWIDTH_REPEATS)}

    def _go_to(self, depth: int, *, full: bool, kv_bits: int) -> None:
        """Take a cache back to `depth`; where it never was, or cannot go back, fill a new one."""
        self.cache = self._caches.get((full, kv_bits), [])
        if depth > 0 and self.cache and self.cache[0].can_trim(self.cache[0].offset - depth):
            for layer in self.cache:
                layer.trim(layer.offset - depth)
        else:
            self.cache = self._empty(full=full, kv_bits=kv_bits)
            self._fill(self.cache, depth)

    def _empty(self, *, full: bool, kv_bits: int) -> list[RollingBufferCache]:
        """Return a new cache, the only one of its kind."""
        new = make_cache(replace(self.model.args, kv_bits=kv_bits))
        self._caches[full, kv_bits] = [RollingBufferCache(None, kv_bits=kv_bits) for _ in new] if full else new
        return self._caches[full, kv_bits]

    def _fill(self, cache: list[RollingBufferCache], depth: int) -> None:
        """Put random keys and values, the same in each layer, where `depth` tokens would have left theirs."""
        if depth == 0:
            return
        args = self.model.args
        kept = min(depth, cache[0].size or depth)
        keys, values = (self._random((1, args.n_kv_heads, kept, args.head_dim)) for _ in range(2))
        for layer in cache:
            layer.offset = depth - kept
            layer.update_and_fetch(keys, values)
            mx.eval(layer.keys, layer.values)

    def _random(self, shape: tuple[int, ...]) -> mx.array:
        return mx.random.normal(shape).astype(kernels.cache_dtype(mx.bfloat16))

    def _ids(self, n: int) -> list[int]:
        return list(map(int, np.random.default_rng(0).integers(3, self.model.args.vocab_size, n)))


def main() -> None:
    """Load the model and answer until the input ends."""
    side = Ours(sys.argv[1], int(sys.argv[2]))
    names = "about prefill decode cache_nbytes full_cache_nbytes attention read_bandwidth".split()
    serve({name: getattr(side, name) for name in names})


if __name__ == "__main__":
    main()
