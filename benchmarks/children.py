"""Runs a program once: its time, its first output, its peak memory."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

OUR_PROGRAM = (sys.executable, "-c", "from mistral_mlx.cli.main import main; main()")  # what the installed one does


@dataclass(frozen=True)
class Child:
    """What was seen of a program that has ended."""

    seconds: float
    first_output_s: float  # to the first byte on stdout
    peak_nbytes: int  # resident memory, mapped pages of files included


def run(command: Sequence[object]) -> Child:
    """Run a program to its end; its stderr is shown only if it fails.

    Raises SystemExit if it does.
    """
    start = time.perf_counter()
    with subprocess.Popen(
        list(map(str, command)), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    ) as process:
        assert process.stdout and process.stderr
        process.stdout.read(1)
        first = time.perf_counter() - start
        process.stdout.read()
        said = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} ended with {process.returncode}: {said.decode().strip()}")
    return Child(seconds, first, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024))


def read_through(path: Path) -> None:
    """Bring a file or the files of a folder into the page cache."""
    buffer = bytearray(1 << 20)
    for file in _files(path):
        with file.open("rb", buffering=0) as opened:
            while opened.readinto(buffer):
                pass


def forget(path: Path) -> None:
    """Take a file or the files of a folder out of the page cache."""
    for file in _files(path):
        with file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def sync(path: Path) -> float:
    """Write a file or the files of a folder to the disk; return how many seconds that took."""
    start = time.perf_counter()
    for file in _files(path):
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
    return time.perf_counter() - start


def _files(path: Path) -> list[Path]:
    return [file for file in path.iterdir() if file.is_file()] if path.is_dir() else [path]
