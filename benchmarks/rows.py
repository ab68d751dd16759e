"""Measures what a pass of several rows costs relative to one: a block of Mistral 7B's shape.

    python benchmarks/rows.py [--bits 4|8]

Several rows are several tokens at once: a draft, a batch, a prompt. The passes go through the blocks in turn, and the
blocks together are larger than the last cache, so that weights come from memory as they do in a model.
"""

import argparse
import time
from functools import partial
from itertools import cycle
from typing import NamedTuple

import mlx.core as mx
import numpy as np
from common import Measure, alternate, figure, parser, ratio, spread
from limits import Limits
from models import MISTRAL_7B, TINY, Shape
from report import finish, machine

from mistral_mlx import __version__, kernels
from mistral_mlx.kernels import Norm, ReadyBlock, Weight, native
from mistral_mlx.model.rope import rotation

ROWS = (1, 2, 4, 8, 9, 16, 32, 128, 512)
GROUP_SIZE = 64
N_BLOCKS = 8  # 4 bits: 980 MB
SECONDS = 0.3  # of passes for one value

SHAPES = {"7b": MISTRAL_7B, "tiny": TINY}


class Block(NamedTuple):
    """A transformer block made ready, with room for the keys and values of as many tokens as are measured."""

    ready: ReadyBlock
    keys: mx.array
    values: mx.array
    nbytes: int  # of the packed weights, scales and biases included

    def compute(self, x: mx.array) -> mx.array:
        """Run ``[1, S, D]`` through the block."""
        h, *_ = kernels.run_block(x, self.keys, self.values, self.ready, position=0, layout=kernels.Layout(0, 0, 0))
        mx.eval(h)
        return h


def main() -> None:
    """Measure and report."""
    options = _options()
    if not native.available:
        raise SystemExit(f"the native kernels are measured, and they are not here: {native.missing}")
    described = machine(options)
    mx.set_default_device(mx.cpu)
    kernels.set_threads(options.threads)
    shape = SHAPES[options.shape]
    blocks = [random_block(shape, options.bits, seed) for seed in range(N_BLOCKS)]
    upcoming = cycle(blocks)
    limits = Limits(options, lambda: kernels.read_bandwidth() or 0.0)
    measures: dict[str, Measure] = {str(n): partial(_seconds, upcoming, n, shape.dim) for n in ROWS}
    values = alternate(options.runs, measures | limits.measures())
    record = {
        "shape": options.shape,
        "bits": options.bits,
        "group_size": GROUP_SIZE,
        "block_mb": figure(blocks[0].nbytes / 1e6),
        "ours": {"version": f"mistral-mlx {__version__}", "kernels": kernels.names()},
        "threads": options.threads,
        "runs": options.runs,
        "limits": limits.record(values),
        "one_row_gb_s": spread([blocks[0].nbytes / seconds / 1e9 for seconds in values["1"]]),
        "milliseconds": {str(n): spread([1e3 * seconds for seconds in values[str(n)]]) for n in ROWS},
        "against_one_row": {str(n): ratio(values[str(n)], values["1"]) for n in ROWS[1:]},
    }
    finish("rows", record, described, options)


def _options() -> argparse.Namespace:
    options = parser("The cost of a pass of several rows, relative to one row.")
    options.add_argument("--bits", type=int, choices=(2, 3, 4, 5, 6, 8), default=4, help="per code of a weight")
    options.add_argument("--shape", choices=tuple(SHAPES), default="7b", help="of the block; tiny tries the script")
    return options.parse_args()


def random_block(shape: Shape, bits: int, seed: int) -> Block:
    """Return a block of random packed weights that keep the size of their input."""
    rng = np.random.default_rng(seed)
    weights = []
    for n_out, n_in in shape.layer().values():
        codes = mx.array(np.frombuffer(rng.bytes(n_out * n_in * bits // 8), np.uint32).reshape(n_out, -1))
        step = (12 / n_in) ** 0.5 / (1 << bits)
        scales = mx.full((n_out, n_in // GROUP_SIZE), step, mx.bfloat16)
        biases = mx.full(scales.shape, -step * ((1 << bits) - 1) / 2, mx.bfloat16)
        mx.eval(codes, scales, biases)
        weights.append(Weight(codes, scales, biases, GROUP_SIZE, bits))
    norm, turned = Norm(mx.ones((shape.dim,)), 1e-5), rotation(shape.head_dim, 10000.0)
    scale = shape.head_dim**-0.5
    ready = ReadyBlock(weights, [norm, norm], turned, None, scale, shape.n_kv_heads, copy=True)
    room = (1, shape.n_kv_heads, max(ROWS), shape.head_dim)
    nbytes = sum(part.nbytes for weight in weights for part in weight[:3] if part is not None)
    return Block(ready, mx.zeros(room, mx.float16), mx.zeros(room, mx.float16), nbytes)


def _seconds(upcoming: "cycle[Block]", n_rows: int, dim: int) -> float:
    """Return the seconds of a pass of one block, over as many blocks as the time allows."""
    x = mx.array(np.random.default_rng(n_rows).standard_normal((1, n_rows, dim), np.float32))
    mx.eval(x)
    start = time.perf_counter()
    n_passes = 0
    while n_passes < N_BLOCKS or time.perf_counter() - start < SECONDS:
        next(upcoming).compute(x)
        n_passes += 1
    return (time.perf_counter() - start) / n_passes


if __name__ == "__main__":
    main()
