"""``bench``: how fast a model is on this machine, as lines or as one JSON object on stdout."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from mistral_mlx import kernels
from mistral_mlx.cli.models.opening import open_weights
from mistral_mlx.cli.terminal.notes import Notes
from mistral_mlx.cli.terminal.streams import write_text
from mistral_mlx.cli.terminal.table import facts, gigabytes, print_json, rounded
from mistral_mlx.errors import counted
from mistral_mlx.files.folder import ModelFolder
from mistral_mlx.measure.benchmark import Measurement, Workload, measure
from mistral_mlx.model.cache_options import DEFAULT, CacheOptions
from mistral_mlx.model.loading import read_args


def run(
    path: Path, workload: Workload, cache: CacheOptions, notes: Notes, *, ignore_memory: bool, pipeline: bool = False
) -> Measurement:
    """Return how fast the model at `path` is with such a cache.

    Raises ContextError before it is read if the workload does not fit.
    """
    workload.check(read_args(ModelFolder(path)))
    model = open_weights(path, notes, workload.n_tokens, cache=cache, ignore_memory=ignore_memory, pipeline=pipeline)
    with notes.progress(delay_s=0) as progress:  # no timer, whose thread would disturb what is measured
        return measure(model, workload, progress=progress)


def show(
    name: str, workload: Workload, measurement: Measurement, *, cache: CacheOptions = DEFAULT, as_json: bool
) -> None:
    """Write the figures of the model called `name` to stdout, as JSON or as lines."""
    if as_json:
        machine = {"kernels": kernels.names(), "threads": kernels.threads()}
        figures = rounded(asdict(measurement))
        record = {"model": name, **figures, **machine, **asdict(workload), **asdict(cache)}
        print_json(record)
        return
    rows = [("model", name), *_rows(workload, measurement)]
    if cache != DEFAULT:
        rows.append(("cache", str(cache)))
    write_text(facts(rows))


def _rows(workload: Workload, m: Measurement) -> Iterator[tuple[str, str]]:
    at_depth = f" after {workload.depth:,}" if workload.depth else ""
    if m.prompt_tps is not None:
        speed = _speed(m.prompt_tps, m.prompt_tps_spread)
        yield "prefill", f"{speed} tok/s, {counted(workload.n_prompt, 'token')}{at_depth}"
        yield "first token", f"after {m.ttft_s:.3f} s"
    if m.generation_tps is not None:
        speed = _speed(m.generation_tps, m.generation_tps_spread)
        yield "decode", f"{speed} tok/s, {counted(workload.n_gen, 'token')}{at_depth}"
        if m.bytes_per_token is not None:
            yield "reads", _reads(m, m.bytes_per_token)
    yield "memory", f"{gigabytes(1e9 * m.peak_memory_gb)} at most"
    yield "kernels", kernels.names()
    yield (
        "figures",
        f"median{' ± half the range' if workload.repeats > 1 else ''} of {workload.repeats}, after a warm-up",
    )


def _reads(m: Measurement, nbytes: int) -> str:
    reads = f"{gigabytes(nbytes)} a token"
    if m.read_bandwidth_gbs is None or m.read_bandwidth_share is None:
        return f"{reads}; the read bandwidth is measured only with the native CPU kernels"
    return f"{reads}, {m.read_bandwidth_share:.0%} of the read bandwidth of {m.read_bandwidth_gbs:.1f} GB/s"


def _speed(median: float, spread: float | None) -> str:
    return f"{median:.1f}" + (f" ± {spread:.1f}" if spread is not None else "")
