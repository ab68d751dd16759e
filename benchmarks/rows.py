"""Measures what a pass of several rows costs relative to one: all products of a block of Mistral 7B's shape.

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
from mistral_mlx.kernels import Norm, Weight, native

ROWS = (1, 2, 4, 8, 9, 16, 32, 128, 512)
GROUP_SIZE = 64
N_BLOCKS = 4  # 4 bits: 490 MB
SECONDS = 0.3  # of passes for one value

SHAPES = {"7b": MISTRAL_7B, "tiny": TINY}


class Block(NamedTuple):
    """The matrices of one block, and a norm for both its parts."""

    weights: dict[str, Weight]  # by GGUF's names
    norm: Norm

    @property
    def nbytes(self) -> int:
        """Bytes of the packed weights, scales and biases included."""
        parts = (part for weight in self.weights.values() for part in weight[:3])
        return sum(part.nbytes for part in parts if part is not None)

    def compute(self, x: mx.array) -> mx.array:
        """Run all products on rows ``[1, S, D]`` as a model does; queries stand for the result of attention."""
        w = self.weights
        q, k, v = kernels.products(x, [w["attn_q"], w["attn_k"], w["attn_v"]], self.norm)
        h = kernels.add_product(x, q, w["attn_output"])
        h = kernels.add_product(h, kernels.swiglu(h, w["ffn_gate"], w["ffn_up"], self.norm), w["ffn_down"])
        mx.eval(h, k, v)
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
    weights = {}
    for name, (n_out, n_in) in shape.layer().items():
        codes = mx.array(np.frombuffer(rng.bytes(n_out * n_in * bits // 8), np.uint32).reshape(n_out, -1))
        step = (12 / n_in) ** 0.5 / (1 << bits)
        scales = mx.full((n_out, n_in // GROUP_SIZE), step, mx.bfloat16)
        biases = mx.full(scales.shape, -step * ((1 << bits) - 1) / 2, mx.bfloat16)
        mx.eval(codes, scales, biases)
        weights[name] = Weight(codes, scales, biases, GROUP_SIZE, bits)
    return Block(weights, Norm(mx.ones((shape.dim,)), 1e-5))


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
