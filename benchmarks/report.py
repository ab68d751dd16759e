"""The end of every benchmark: the machine, a line for each figure, the line of JSON, and the file that keeps it."""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from common import FOLDER, figure


def machine(options: argparse.Namespace) -> dict[str, object]:
    """Return what a reader must know of the machine; its limits are measured once, by a process of their own."""
    command = [sys.executable, FOLDER / "limits.py", "--work", options.work, "--threads", str(options.threads)]
    meminfo = Path("/proc/meminfo")
    memory = int(meminfo.read_text().split()[1]) * 1024 if meminfo.exists() else None
    described = {
        "cpu": _cpu(),
        "date": time.strftime("%Y-%m-%d"),
        "cores": os.cpu_count(),
        "memory_gb": figure(memory / 1e9) if memory else None,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load_before": figure(os.getloadavg()[0]),
    }
    return described | json.loads(subprocess.check_output(command))


def finish(
    benchmark: str, record: Mapping[str, object], described: Mapping[str, object], options: argparse.Namespace
) -> None:
    """Print every figure on a line of its own, then the whole record as the last line; `described` is the machine."""
    record = {"benchmark": benchmark, "machine": described, **record}
    for name, value in _flat(record, ""):
        print(f"{name:32} {value}")
    line = json.dumps(record)
    if options.results:
        options.results.mkdir(parents=True, exist_ok=True)
        cpu = re.sub(r"[^a-z0-9]+", "-", str(described["cpu"]).lower()).strip("-")
        with (options.results / f"{cpu}-{described['date']}.jsonl").open("a") as file:
            print(line, file=file)
    print(line)


def _cpu() -> str:
    """Return the name of the CPU, with the numbers that tell its generation where the name does not."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = [line.split(":", 1) for line in cpuinfo.read_text().splitlines()] if cpuinfo.exists() else []
    fields = {line[0].strip(): line[1].strip() for line in reversed(lines) if line[1:]}
    name = fields.get("model name") or platform.processor() or platform.machine()
    return f"{name} (family {fields['cpu family']}, model {fields['model']})" if "cpu family" in fields else name


def _flat(value: object, name: str) -> Iterator[tuple[str, object]]:
    """Yield the leaves of nested mappings; a spread is one leaf."""
    if not isinstance(value, Mapping):
        yield name, value
    elif value.keys() == {"median", "min", "max"}:
        yield name, f"{value['median']:g} ({value['min']:g} to {value['max']:g})"
    else:
        for key, part in value.items():
            yield from _flat(part, f"{name}.{key}" if name else str(key))
