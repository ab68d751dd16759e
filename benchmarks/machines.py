"""Measures a model shared by processes of one machine, behind networks of several delays, against the sum on paper.

    sudo python benchmarks/machines.py --model 7b-4bit --delays 0 0.1 1 5

All have one thread each. Processes on one machine share its memory, so that two of them are as fast as one process with
two threads, without the head: it is rank 0's alone. What is reckoned is that, and the sums and transfers of a token.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Sequence

from common import FOLDER, alternate, figure, parser, spread
from models import BenchmarkModel, ready
from ranks import Network, placed, program, run
from report import finish, machine

MEGABYTES = {"2 MB": 2 << 18, "8 MB": 8 << 18}  # in numbers of 4 bytes


def main() -> None:
    """Measure and report."""
    options = _options()
    described = machine(options)
    model = ready(options)
    networks = [Network(delay, options.rate) for delay in options.delays]
    alone = _alone(options, model)
    n = next(n for n in range(2, 99) if model.shape.n_kv_heads % n == 0)
    ways = {"one process": (1, []), "tensor": (n, []), "pipeline": (2, ["--pipeline"])}
    record = {
        "model": model.name,
        "tokens": {"prefill": options.prefill, "decode": options.decode},
        "runs": options.runs,
        "alone": {name: spread(values) for name, values in alone.items()},
        "networks": {_name(network): _measured(options, model, network, n, alone) for network in networks},
        "memory_mb": {name: _memory(options, model, *way) for name, way in ways.items()},
    }
    finish("machines", record, described, options)


def _options() -> argparse.Namespace:
    options = parser("A model shared by processes with one thread each, behind networks of several delays.")
    options.add_argument("--model", default="7b-4bit", help="one of those in models.py")
    options.add_argument(
        "--delays", type=float, nargs="+", default=[0.0], help="milliseconds, one way; not 0 needs root"
    )
    options.add_argument("--rate", type=float, default=0.0, help="of each process's line in Mbit/s; 0 is no limit")
    options.add_argument("--prefill", type=int, default=64, help="tokens of the prompt")
    options.add_argument("--decode", type=int, default=16, help="tokens decoded one by one")
    options.add_argument("--sums", type=int, default=100, help="how often each sum is repeated")
    return options.parse_args()


def _alone(options: argparse.Namespace, model: BenchmarkModel) -> dict[str, list[float]]:
    """Return tokens per second of one process with one thread, and with two."""
    return alternate(
        options.runs,
        {f"{n} thread": lambda n=n: _bench(options, model, Network(), 1, ["--threads", n]) for n in (1, 2)},
        warmup=0,
    )


def _measured(
    options: argparse.Namespace, model: BenchmarkModel, network: Network, n: int, alone: dict[str, list[float]]
) -> dict[str, object]:
    """Return what one network costs."""
    sums = _sums(options, model, network, n)
    rates = alternate(
        options.runs,
        {
            "tensor": lambda: _bench(options, model, network, n, ["--threads", 1]),
            "pipeline": lambda: _bench(options, model, network, 2, ["--threads", 1, "--pipeline"]),
        },
        warmup=0,
    )
    seconds = {name: 1 / statistics.median(alone[f"{name} decode"]) for name in ("1 thread", "2 thread")}
    return {
        "ranks": {"tensor": n, "pipeline": 2},
        "ms": {name: figure(s * 1e3) for name, s in sums.items()},
        "reckoned_tok_s": {name: figure(1 / s) for name, s in _reckoned(model, seconds, sums).items()},
        **{name: spread(values) for name, values in rates.items()},
    }


def _reckoned(model: BenchmarkModel, seconds: dict[str, float], sums: dict[str, float]) -> dict[str, float]:
    """Return the seconds of a token: those of one process, and those of the messages."""
    shape = model.shape
    head = shape.vocab_size * shape.dim / shape.token_weights
    work = seconds["2 thread"] * (1 - head) + seconds["1 thread"] * head
    return {
        "tensor": work + 2 * shape.n_layers * sums["of a token"] + sums["message"],
        "pipeline": seconds["1 thread"] + sums["message"] + sums["circle"],
    }


def _sums(options: argparse.Namespace, model: BenchmarkModel, network: Network, n: int) -> dict[str, float]:
    sizes = {"of 1": 1, "of 4096": 4096, "of 8192": 8192, **MEGABYTES, "of a token": model.shape.dim}
    command = [sys.executable, FOLDER / "side_ranks.py", options.sums, model.shape.dim, *sizes.values()]
    with placed(network, n, options.work) as places:
        found = json.loads(run(places, network, command)[0].output)
    named = {name: found[str(size)] for name, size in sizes.items()}
    return named | {name: found[name] for name in ("message", "circle")}


def _bench(
    options: argparse.Namespace, model: BenchmarkModel, network: Network, n: int, words: Sequence[object]
) -> dict[str, float]:
    """Return tokens per second of a group of n processes."""
    tokens = ["-p", options.prefill, "-n", options.decode, "--repeats", 1]
    command = program("bench", model.folder(options.work), *tokens, "--json", "--quiet", "--device", "cpu", *words)
    with placed(network, n, options.work) as places:
        found = json.loads(run(places, network, command)[0].output)
    return {"decode": found["generation_tps"], "prefill": found["prompt_tps"]}


def _memory(options: argparse.Namespace, model: BenchmarkModel, n: int, words: Sequence[object]) -> dict[str, object]:
    """Return the most memory in MB that each of n processes has while it answers, and what of it is no file's."""
    command = program("complete", "--raw", "-n", 4, "-m", model.folder(options.work), "-q", *words, "--", "wxyz")
    with placed(Network(), n, options.work) as places:
        ended = run(places, Network(), command)
    return {
        f"rank {rank}": {"peak": figure(one.peak_nbytes / 1e6), "own": figure(one.anonymous_nbytes / 1e6)}
        for rank, one in enumerate(ended)
    }


def _name(network: Network) -> str:
    rate = f", {network.mbit_s:g} Mbit/s" if network.mbit_s else ""
    return f"{network.delay_ms:g} ms{rate}"


if __name__ == "__main__":
    main()
