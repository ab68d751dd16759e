"""Shared by all benchmarks: options, sides in processes, turns, medians.

A side is a program that holds one model and answers requests, one JSON object a line, on its standard streams. Both
sides live through the whole run and take turns; while one works, the other waits for its next line. How much CPU it
used while it waited is reported with every answer. Only the standard library is needed here.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
Handler = Callable[..., dict[str, Any]]
Measure = Callable[[], float | Mapping[str, float]]


def parser(description: str) -> argparse.ArgumentParser:
    """Return a parser with the options that all benchmarks have."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    options = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False
    )
    options.add_argument("--work", type=Path, default=cache / "mistral-mlx-benchmarks", help="folder for the models")
    options.add_argument(
        "--llama-python", type=_program, default=sys.executable, help="interpreter that has llama-cpp-python"
    )
    options.add_argument("--threads", type=int, default=physical_cores(), help="of either side")
    options.add_argument("--runs", type=int, default=5, help="of which the medians are taken")
    options.add_argument("--results", type=Path, help="folder in which the line of JSON is kept, for table.py")
    return options


def _program(name: str) -> str:
    if shutil.which(name) is None:
        raise argparse.ArgumentTypeError(f"there is no program {name}")
    return name


def physical_cores() -> int:
    """Return how many cores this process may use, hardware threads of one core counted once."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    siblings = [Path(f"/sys/devices/system/cpu/cpu{n}/topology/thread_siblings_list") for n in os.sched_getaffinity(0)]
    return len({path.read_text() if path.exists() else str(path) for path in siblings})


class Side:
    """A program that answers requests; its answers and its death are checked."""

    def __init__(self, name: str, *command: object) -> None:
        self.name = name
        self.idle_share = 0.0  # the most CPU it used while it had nothing to do, in cores
        self._process = subprocess.Popen(
            list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.about = self.ask("about")

    def ask(self, what: str, **arguments: object) -> dict[str, Any]:
        """Return the answer to one request."""
        assert self._process.stdin and self._process.stdout
        line = ""
        with suppress(BrokenPipeError):
            print(json.dumps({"what": what, **arguments}), file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended with status {self._process.wait()} when asked for {what}")
        answer: dict[str, Any] = json.loads(line)
        self.idle_share = max(self.idle_share, answer.pop("idle_share"))
        return answer

    def seconds(self, what: str, **arguments: object) -> float:
        """Return how long the side took for it, by its own clock."""
        return float(self.ask(what, **arguments)["seconds"])

    def rate(self, what: str, n: int, **place: object) -> float:
        """Return how many of `n` tokens it does per second."""
        return n / self.seconds(what, n=n, **place)

    def read_bandwidth(self) -> float:
        """Return how many bytes per second its threads read; of our side alone."""
        return float(self.ask("read_bandwidth")["bytes_per_s"])

    def __enter__(self) -> "Side":
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()


def serve(handlers: Mapping[str, Handler]) -> None:
    """Answer requests on the standard streams until the input ends; what else is printed goes to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    waits, cpu = time.perf_counter(), time.process_time()
    for line in sys.stdin:
        waited, used = time.perf_counter() - waits, time.process_time() - cpu
        request = json.loads(line)
        answer = handlers[request.pop("what")](**request)
        with suppress(BrokenPipeError):  # nobody is left to read it, so the next line is the end
            print(json.dumps({**answer, "idle_share": used / waited if waited > 1 else 0.0}), file=answers, flush=True)
        waits, cpu = time.perf_counter(), time.process_time()


def timed(work: Callable[[], object]) -> dict[str, Any]:
    """Run it, and return its seconds as an answer."""
    start = time.perf_counter()
    work()
    return {"seconds": time.perf_counter() - start}


def alternate(runs: int, measures: Mapping[str, Measure], *, warmup: int = 1) -> dict[str, list[float]]:
    """Return `runs` values of each measure, taken in turns; every other round goes backwards.

    A measure that returns several named values gives a list for each, under both names with a space between.
    """
    values: dict[str, list[float]] = {}
    for n in range(-warmup, runs):
        for name in list(measures)[:: 1 if n % 2 == 0 else -1]:
            found = measures[name]()
            several = {f"{name} {key}": value for key, value in found.items()} if isinstance(found, Mapping) else {}
            for label, value in (several or {name: found}).items():
                progress(f"{'warm-up' if n < 0 else f'round {n + 1}/{runs}'}: {label} {value:.4g}")
                if n >= 0:
                    values.setdefault(label, []).append(value)
    return values


def spread(values: list[float]) -> dict[str, float]:
    """Return the median, with the least and the largest beside it."""
    return {"median": figure(statistics.median(values)), "min": figure(min(values)), "max": figure(max(values))}


def ratio(ours: list[float], peer: list[float]) -> dict[str, float]:
    """Return the spread of ours / peer, each taken within one round, so that a drift of the machine cancels."""
    return spread([a / b for a, b in zip(ours, peer, strict=True)])


def ratios(ours: list[float], peers: Mapping[str, list[float]]) -> dict[str, dict[str, float]]:
    """Return the ratios of our rates to those of each peer and, if there are several, of the fastest in each round."""
    fastest = [max(rates) for rates in zip(*peers.values(), strict=True)]
    against = peers if len(peers) < 2 else {**peers, "the fastest peer": fastest}
    return {name: ratio(ours, rates) for name, rates in against.items()}


def figure(value: float) -> float:
    """Return four significant digits."""
    return float(f"{value:.4g}")


def progress(text: str) -> None:
    """Say on stderr how far it is."""
    print(text, file=sys.stderr, flush=True)
