"""The peers' own benchmarks, each measurement in a process: llama-bench of llama.cpp and of ik_llama.cpp.

Both are built by whoever measures, natively, and given by their paths. Each gets the flags that make it fast on a CPU.
"""

import argparse
import json
import math
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models import BenchmarkModel

FLAGS = {"llama.cpp": "-fa 1", "ik": "-rtr 1 -fa 1"}  # of llama-bench
SWEEP_FLAGS = ("-rtr", "-fa", "on")  # the same for ik's llama-sweep-bench


@dataclass
class Peer:
    """One file in one peer."""

    family: str  # llama.cpp or ik
    kind: str  # of the file's matrices
    program: Path  # its llama-bench
    flags: list[str]
    file: Path
    threads: int
    build: dict[str, Any] = field(default_factory=dict)  # as the program names itself

    @property
    def name(self) -> str:
        """What it is called in reports."""
        return f"{self.family} {self.kind}"

    def about(self) -> dict[str, Any]:
        """Say what ran; after the first measurement, its build too."""
        return {**self.build, "flags": " ".join(self.flags), "file": self.file.name}

    def prefill(self, n: int) -> float:
        """Return the tokens per second of a prompt of `n`."""
        return float(self._bench("-p", n, "-n", 0)[0]["avg_ts"])

    def decode(self, n: int) -> float:
        """Return the tokens per second of `n` tokens one by one, from an empty cache on."""
        return float(self._bench("-p", 0, "-n", n)[0]["avg_ts"])

    def at_depths(self, depths: Sequence[int], *, prefill: int, decode: int) -> dict[str, float]:
        """Return the tokens per second of both at each depth, as "prefill 4096" and "decode 4096".

        One process reads prompts up to each depth. All depths must be multiples of `prefill`.
        """
        if self.family == "ik":
            return self._sweep(depths, prefill, decode)
        rows = self._bench("-p", prefill, "-n", decode, "-d", ",".join(map(str, depths)))
        return {f"{'prefill' if row['n_prompt'] else 'decode'} {row['n_depth']}": row["avg_ts"] for row in rows}

    def _bench(self, *arguments: object) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = json.loads(
            run(self.program, "-m", self.file, "-t", self.threads, "-r", 1, "-o", "json", *self.flags, *arguments)[0]
        )
        self.build |= {name: rows[0][name] for name in ("build_commit", "build_number")}
        return rows

    def _sweep(self, depths: Sequence[int], prefill: int, decode: int) -> dict[str, float]:
        """Let ik's llama-sweep-bench read a long prompt: its llama-bench does not measure prompts at a depth."""
        stride = math.gcd(*depths) // prefill
        arguments = ["-m", self.file, "-t", self.threads, "-c", max(depths) + prefill, "-b", prefill, "-ub", prefill]
        arguments += ["-n", decode, "--sweep-stride", stride, "--output-format", "jsonl", *SWEEP_FLAGS]
        lines = "\n".join(run(self.program.with_name("llama-sweep-bench"), *arguments)).splitlines()
        rows = {row["n_kv"]: row for row in map(json.loads, filter(lambda line: line.startswith("{"), lines))}
        return {
            f"{what} {depth}": rows[depth][f"speed_{short}"]
            for depth in depths
            for what, short in (("prefill", "pp"), ("decode", "tg"))
        }


def add_options(options: argparse.ArgumentParser) -> None:
    """Add the paths of the peers' programs, and their flags."""
    for family, name in (("llama.cpp", "llama"), ("ik", "ik")):
        what = "llama.cpp" if name == "llama" else "ik_llama.cpp"
        options.add_argument(f"--{name}-bench", type=_program, help=f"llama-bench of {what}")
        options.add_argument(f"--{name}-flags", default=FLAGS[family], help=f"for it; write --{name}-flags='...'")
    options.add_argument("--kinds", nargs="+", help="of GGUF files that the peers read; by default all of the model")


def chosen(options: argparse.Namespace, model: BenchmarkModel) -> list[Peer]:
    """Return the peers that the options name, each with each file of the model.

    Raises SystemExit if the model has no file of a kind.
    """
    if unknown := set(options.kinds or ()) - set(model.kinds):
        raise SystemExit(f"{model.name} has files of {', '.join(model.kinds)}, not of {', '.join(sorted(unknown))}")
    work = options.work.resolve()
    found = (("llama.cpp", options.llama_bench, options.llama_flags), ("ik", options.ik_bench, options.ik_flags))
    return [
        Peer(family, kind, program, shlex.split(flags), model.gguf(work, kind), options.threads)
        for family, program, flags in found
        if program
        for kind in options.kinds or model.kinds
    ]


def run(program: Path, *arguments: object) -> tuple[str, str]:
    """Run a program to its end in a folder of its own; return what it wrote to stdout and to stderr.

    Raises SystemExit if it fails or is not there.
    """
    command = [str(program), *map(str, arguments)]
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", check=False)
        except OSError as error:
            raise SystemExit(f"{program} cannot be run: {error}") from None
    if done.returncode:
        raise SystemExit(f"{shlex.join(command)} ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
    return done.stdout, done.stderr


def _program(name: str) -> Path:
    found = shutil.which(name)
    if found is None:
        raise argparse.ArgumentTypeError(f"there is no program {name}")
    return Path(found).resolve()
