"""Measures the machine's limits: memory bandwidth for decode, int8 products for prefill.

    python benchmarks/limits.py [--threads N]

Run as a program, it prints them as one line of JSON, with the kernels that this program uses here.
"""

import argparse
import json
import shutil
import statistics
import subprocess
from collections.abc import Callable

from common import FOLDER, figure, parser, progress, spread
from models import BenchmarkModel


class Limits:
    """Measures both limits, and says which part of them a rate is."""

    def __init__(self, options: argparse.Namespace, read_bandwidth: Callable[[], float]) -> None:
        self.instruction: str | None = None  # that the arithmetic peak was measured with
        self._read_bandwidth = read_bandwidth  # bytes per second
        self._command = [str(options.work / "peak"), str(options.threads)]
        self._has_peak = _compiled(self._command[0])

    def measures(self) -> dict[str, Callable[[], float]]:
        """Return what to measure in each round of a run: bytes and operations per second, of all threads together."""
        return {"bandwidth": self._read_bandwidth} | ({"peak": self._peak} if self._has_peak else {})

    def record(self, rates: dict[str, list[float]]) -> dict[str, object]:
        """Return the limits for the report."""
        return {
            "read_gb_s": spread([n / 1e9 for n in rates["bandwidth"]]),
            "int8_top_s": spread([n / 1e12 for n in rates["peak"]]) if self._has_peak else None,
            "instruction": self.instruction,
        }

    def _peak(self) -> float:
        found = json.loads(subprocess.check_output(self._command))
        self.instruction = found["instruction"]
        return float(found["ops"])


def decode_rate(model: BenchmarkModel, tokens_per_s: list[float], rates: dict[str, list[float]]) -> dict[str, object]:
    """Return tokens and bytes per second: a token reads all matrices once, but for the embedding's other rows."""
    read = model.shape.token_weights * model.bits / 8 * statistics.median(tokens_per_s)
    return {
        "tok_s": spread(tokens_per_s),
        "gb_s": figure(read / 1e9),
        "of_limit": figure(read / statistics.median(rates["bandwidth"])),
    }


def prefill_rate(model: BenchmarkModel, tokens_per_s: list[float], rates: dict[str, list[float]]) -> dict[str, object]:
    """Return tokens and useful operations per second; a multiply-add is two, and the head sees one token only."""
    ops = 2 * model.shape.used_weights * statistics.median(tokens_per_s)
    peak = statistics.median(rates["peak"]) if "peak" in rates else None
    return {
        "tok_s": spread(tokens_per_s),
        "top_s": figure(ops / 1e12),
        "of_limit": figure(ops / peak) if peak else None,
    }


def _compiled(program: str) -> bool:
    """Compile `peak.c`; return whether there is a compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        progress("there is no C compiler (cc): the arithmetic peak of this machine stays unknown")
        return False
    subprocess.run([compiler, "-O3", "-march=native", "-pthread", str(FOLDER / "peak.c"), "-o", program], check=True)
    return True


def main() -> None:
    """Print the limits of this machine, measured once."""
    import mlx.core as mx

    from mistral_mlx import kernels

    options = parser("The limits of this machine: reading memory, and int8 products.").parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    mx.set_default_device(mx.cpu)
    kernels.set_threads(options.threads)
    limits = Limits(options, lambda: kernels.read_bandwidth() or 0.0)
    found = {name: measure() for name, measure in limits.measures().items()}
    record = {
        "kernels": kernels.names(),
        "read_gb_s": figure(found["bandwidth"] / 1e9) if found["bandwidth"] else None,
        "int8_top_s": figure(found["peak"] / 1e12) if "peak" in found else None,
        "instruction": limits.instruction,
    }
    print(json.dumps(record))


if __name__ == "__main__":
    main()
