"""Converts and exports random weights of Mixtral 8x7B's shape, cut to a few layers: seconds and peak memory.

    python benchmarks/mixtral.py --work DIR [--layers 4] [--keep]

The source is bfloat16, a tensor for each matrix of an expert (117 MB). What a conversion holds does not depend on the
layers. The packed folder and the GGUF file stay; the source goes unless it is to be kept.
"""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import children
from common import parser, progress
from models import MIXTRAL_CUT
from report import finish, machine


def main() -> None:
    """Measure and report."""
    options = parser("Converting and exporting a Mixtral of random weights.")
    options.add_argument("--layers", type=int, default=4)
    options.add_argument("--keep", action="store_true", help="keep the source")
    options.add_argument("--only-source", action="store_true", help="write the source and end")
    given = options.parse_args()
    name = f"mixtral{given.layers}"
    source, packed, gguf = (given.work / place for place in (name, f"{name}-4bit", f"{name}.gguf"))
    if given.only_source:
        _write(source, given.layers)
        return
    described = machine(given)
    shutil.rmtree(packed, ignore_errors=True)
    gguf.unlink(missing_ok=True)
    if not source.exists():  # by a process of its own: the most memory that a parent ever held counts as its children's
        subprocess.run([sys.executable, __file__, *sys.argv[1:], "--only-source"], check=True)
    runs = {
        "convert": children.run([*children.OUR_PROGRAM, "convert", source, packed, "--bits", 4, "--quiet"]),
        "export": children.run([*children.OUR_PROGRAM, "export", packed, gguf, "--quiet"]),
    }
    source_gb = sum(file.stat().st_size for file in source.iterdir()) / 1e9
    if not given.keep:
        shutil.rmtree(source)
    record = {"layers": given.layers, "source_gb": source_gb} | {
        what: {"seconds": child.seconds, "peak_gb": child.peak_nbytes / 1e9} for what, child in runs.items()
    }
    finish("mixtral", record, described, given)


def _write(source: Path, n_layers: int) -> None:
    from random_weights import write_mixtral

    progress(f"making {source}")
    source.parent.mkdir(parents=True, exist_ok=True)
    write_mixtral(replace(MIXTRAL_CUT, n_layers=n_layers), source)


if __name__ == "__main__":
    main()
