"""Quantizes a bfloat16 checkpoint to 4 bits in turns: ours, and llama.cpp's to Q4_0.

    python benchmarks/convert.py --model 7b-bf16 [--cache warm|cold]

Each conversion is a process of its own, from its start to its end. Before each, its source is brought into the page
cache or taken out of it, and what the last one wrote is on the disk. Ours ends with its files on the disk; llama.cpp's
does not, so the time that this takes is measured on its own and reported as a second ratio. The peak of resident
memory counts mapped pages of the source, which the system may take back, too. Ours chooses its own number of threads.
"""

import argparse
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import children
from common import FOLDER, alternate, parser, ratio, spread
from models import MODELS, ready
from report import finish, machine

ROOM = 2.0  # of the outputs of both, and a margin


class Conversion:
    """One side's command, and what its runs took."""

    def __init__(self, source: Path, target: Path, command: list[object]) -> None:
        self.source, self.target, self.command = source, target, command
        self.peaks: list[float] = []
        self.syncs: list[float] = []

    def measure(self, prepare: Callable[[Path], None]) -> float:
        """Run it once; return its seconds."""
        os.sync()
        prepare(self.source)
        child = children.run(self.command)
        self.peaks.append(child.peak_nbytes / 1e9)
        self.syncs.append(children.sync(self.target))
        self.remove()
        return child.seconds

    def remove(self) -> None:
        """Remove what it wrote."""
        shutil.rmtree(self.target) if self.target.is_dir() else self.target.unlink(missing_ok=True)


def main() -> None:
    """Measure and report."""
    options = _options()
    described = machine(options)
    model = ready(options)
    _check_room(options.work, model.nbytes)
    sides = {"ours": _ours(options), "peer": _peer(options)}
    prepare = children.read_through if options.cache == "warm" else children.forget
    for side in sides.values():
        side.remove()
    seconds = alternate(options.runs, {name: partial(side.measure, prepare) for name, side in sides.items()})
    on_disk = [a + b for a, b in zip(seconds["peer"], sides["peer"].syncs[-options.runs :], strict=True)]
    record = {
        "model": model.name,
        "source_gb": model.nbytes / 1e9,
        "page_cache": options.cache,
        "threads": options.threads,
        "runs": options.runs,
        "peer_against_ours": ratio(seconds["peer"], seconds["ours"]),  # how many times faster ours is
        "peer_on_disk_against_ours": ratio(on_disk, seconds["ours"]),
        "peer_sync_s": spread(sides["peer"].syncs[-options.runs :]),
        **{
            name: {"seconds": spread(seconds[name]), "peak_gb": spread(side.peaks[-options.runs :])}
            for name, side in sides.items()
        },
    }
    finish("convert", record, described, options)


def _options() -> argparse.Namespace:
    options = parser("Quantizing a bfloat16 checkpoint to 4 bits, ours against llama.cpp's, in turns.")
    options.add_argument("--model", choices=[name for name in MODELS if name.endswith("bf16")], default="7b-bf16")
    options.add_argument("--cache", choices=("warm", "cold"), default="warm", help="where the source is at the start")
    return options.parse_args()


def _check_room(folder: Path, source_nbytes: int) -> None:
    needed, free = int(ROOM * source_nbytes * 4.5 / 16), shutil.disk_usage(folder).free
    if free < needed:
        raise SystemExit(f"{needed / 1e9:.1f} GB are needed in {folder}, {free / 1e9:.1f} GB are free")


def _ours(options: argparse.Namespace) -> Conversion:
    source, target = MODELS[options.model].folder(options.work), options.work / "converted"
    return Conversion(source, target, [*children.OUR_PROGRAM, "convert", source, target, "--bits", 4, "--quiet"])


def _peer(options: argparse.Namespace) -> Conversion:
    source, target = MODELS[options.model].gguf(options.work), options.work / "converted.gguf"
    script = FOLDER / "side_llama.py"
    return Conversion(source, target, [options.llama_python, script, "quantize", source, target, options.threads])


if __name__ == "__main__":
    main()
