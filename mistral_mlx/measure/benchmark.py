"""Measures how fast a model is on this machine: prefill, decode, and the share of the memory's read rate.

Ids are random, because the cost of a token does not depend on its text. One whole repeat is run first and not counted.
"""

import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TypeVar

from mlx.utils import tree_flatten

from mistral_mlx import kernels
from mistral_mlx.errors import ContextError, OptionError, counted
from mistral_mlx.generation.decode import decode
from mistral_mlx.generation.timeline import Timeline
from mistral_mlx.kernels.memory import peak_memory, wired_memory
from mistral_mlx.model.args import ModelArgs
from mistral_mlx.model.cache import rings_of, row_nbytes
from mistral_mlx.model.mistral import Mistral
from mistral_mlx.progress import Progress
from mistral_mlx.sampling.sampler import Sampler

SEED = 0
MAX_COUNT = 1_000_000  # of tokens or repeats

T = TypeVar("T")


@dataclass(frozen=True)
class Workload:
    """What to measure: either half is left out if its count is 0. Raises OptionError if a count is out of range."""

    n_prompt: int = 512
    n_gen: int = 128
    depth: int = 0  # tokens in the cache before either half begins
    repeats: int = 5

    def __post_init__(self) -> None:
        for field in fields(self):
            value, least = getattr(self, field.name), int(field.name == "repeats")
            if not least <= value <= MAX_COUNT:
                raise OptionError(f"{field.name} is {value}; it must be {least} to {MAX_COUNT}")
        if self.n_prompt == self.n_gen == 0:
            raise OptionError("n_prompt and n_gen are both 0, which leaves nothing to measure; give one of them")

    @property
    def n_tokens(self) -> int:
        """The longest that the cache becomes."""
        return self.depth + max(self.n_prompt, self.n_gen)

    def check(self, args: ModelArgs) -> None:
        """Raise ContextError if the model cannot take so many tokens."""
        limit = args.context_limit
        if limit is not None and self.n_tokens > limit:
            raise ContextError(
                f"a depth of {self.depth:,} and {counted(self.n_tokens - self.depth, 'token')} more do not fit into "
                f"the model's context of {limit:,}",
                "measure fewer tokens, or at a smaller depth",
            )


@dataclass(frozen=True)
class Measurement:
    """Medians of the repeats; a spread is half the distance from the slowest to the fastest, None for one repeat.

    What was left out is None; so is the bandwidth where nothing measures it.
    """

    prompt_tps: float | None
    prompt_tps_spread: float | None
    ttft_s: float | None  # time to first token: the prefill and the choice
    generation_tps: float | None
    generation_tps_spread: float | None
    bytes_per_token: int | None  # read for a generated token, on average; None where processes share the model
    read_bandwidth_gbs: float | None  # 1e9 bytes per second
    read_bandwidth_share: float | None  # above 1 where a small model stays in the CPU's caches
    peak_memory_gb: float  # 1e9 bytes


def measure(model: Mistral, workload: Workload, *, progress: Progress | None = None) -> Measurement:
    """Run `workload` and return its speeds.

    Raises ContextError if the model cannot take so many tokens.
    """
    workload.check(model.args)
    with wired_memory():
        return _measured(model, workload, progress or (lambda what, done, total: None))


def _measured(model: Mistral, workload: Workload, report: Progress) -> Measurement:
    n_prompt, n_gen, repeats = workload.n_prompt, workload.n_gen, workload.repeats
    run = _Run(model, workload.depth, report)
    report("warming up", 0, 1)
    if n_prompt:
        run.prefill_s(n_prompt)
    if n_gen:
        run.decode_s(n_gen)
    peak = peak_memory()  # the repeats need no more, but measuring the bandwidth takes a buffer of its own
    prefills = _repeat(lambda: run.prefill_s(n_prompt), repeats if n_prompt else 0, "prefill", report)
    before = kernels.read_bandwidth() if n_gen else None
    decodes = _repeat(lambda: run.decode_s(n_gen), repeats if n_gen else 0, "decode", report)
    after = kernels.read_bandwidth() if n_gen else None

    prompt_rates = [n_prompt / logits_s for logits_s, _ in prefills]
    generation_rates = [n_gen / seconds for seconds in decodes]
    generation_tps = _median(generation_rates)
    bandwidth = max(before, after) if before and after else None
    nbytes = bytes_per_token(model, workload.depth, n_gen) if n_gen and model.is_whole else None
    return Measurement(
        prompt_tps=_median(prompt_rates),
        prompt_tps_spread=_spread(prompt_rates),
        ttft_s=_median([ttft_s for _, ttft_s in prefills]),
        generation_tps=generation_tps,
        generation_tps_spread=_spread(generation_rates),
        bytes_per_token=nbytes,
        read_bandwidth_gbs=bandwidth / 1e9 if bandwidth else None,
        read_bandwidth_share=nbytes * generation_tps / bandwidth if nbytes and generation_tps and bandwidth else None,
        peak_memory_gb=peak / 1e9,
    )


def bytes_per_token(model: Mistral, depth: int, n_gen: int) -> int:
    """Return the bytes read for each of `n_gen` tokens after `depth`, on average: weights, and visible keys and values.

    Of an embedding that is not the head, too, one row is read.
    """
    args, table = model.args, _nbytes(model.model.embed_tokens.parameters())
    weights = _nbytes(model.parameters())
    if "lm_head" in model:
        weights -= table - table // args.vocab_size
    visible = sum(
        min(position + 1, window + sinks if window else position + 1)
        for window, sinks in rings_of(args)
        for position in range(depth, depth + n_gen)
    )
    itemsize = kernels.cache_dtype(model.model.layers[0].self_attn.k_proj.dtype).size
    return weights + round(2 * args.n_kv_heads * row_nbytes(args, itemsize=itemsize) * visible / n_gen)


class _Run:
    """A timeline of `depth` tokens, which each measurement finds as it was."""

    def __init__(self, model: Mistral, depth: int, report: Progress) -> None:
        self._depth = depth
        self._sampler = Sampler(temperature=0)
        self._random = random.Random(SEED)
        self._timeline = Timeline(model)
        if depth:
            ids = self._ids(depth)
            self._timeline.extend(ids, lambda _, done, total: report("filling the cache", done, total))
        self._n_rows = [layer.n_allocated for layer in self._timeline.layers]

    def prefill_s(self, n_prompt: int) -> tuple[float, float]:
        """Return the seconds to the logits of a prompt, and to the choice of the first token."""
        ids, timeline = self._ids(n_prompt), self._rewound()
        start = time.perf_counter()
        timeline.extend(ids)
        logits_s = time.perf_counter() - start
        assert timeline.logits is not None, n_prompt
        self._sampler(timeline.logits, ids)
        return logits_s, time.perf_counter() - start

    def decode_s(self, n_gen: int) -> float:
        """Return the seconds that `n_gen` tokens take, each from the one before; the first follows a random one."""
        ids, timeline = self._ids(1), self._rewound()
        start = time.perf_counter()
        timeline.extend(ids)
        for _ in decode(timeline, self._sampler, n_gen):
            pass
        return time.perf_counter() - start

    def _ids(self, n: int) -> list[int]:
        return self._random.choices(range(self._timeline.model.args.vocab_size), k=n)

    def _rewound(self) -> Timeline:
        """Return the timeline with as many tokens and slots as at first.

        A ring may hold later keys in their place: other numbers, the same work.
        """
        timeline = self._timeline
        if self._depth == 0:
            return Timeline(timeline.model)
        for layer, n_rows in zip(timeline.layers, self._n_rows, strict=True):
            layer.shrink(self._depth, n_rows)  # one layer's copy at a time
        timeline.restore(timeline.ids[: self._depth], timeline.layers)
        return timeline


def _repeat(run: Callable[[], T], n: int, what: str, report: Progress) -> list[T]:
    results = []
    for i in range(n):
        report(what, i, n)
        results.append(run())
    return results


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def _spread(values: Sequence[float]) -> float | None:
    return (max(values) - min(values)) / 2 if len(values) > 1 else None


def _nbytes(parameters: object) -> int:
    arrays = tree_flatten(parameters, destination={})
    assert isinstance(arrays, dict), type(arrays)
    return sum(array.nbytes for array in arrays.values())
