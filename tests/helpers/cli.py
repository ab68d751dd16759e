"""Runs the program in its own process, with input, signals and a time limit."""

import atexit
import functools
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from helpers.warm_program import warm_program

PROGRAM = [sys.executable, "-c", "from mistral_mlx.cli.main import main; main()"]
READ_AT_IMPORT = ("MISTRAL_MLX_KERNELS", "PYTHONPATH")
GREEDY = ("--temperature", "0", "--max-tokens", "8")


def run(*args, input=None, **options):
    """Run the program; without `input`, stdin is empty."""
    if input is None:
        options["stdin"] = subprocess.DEVNULL
    else:
        options["input"] = input
    return subprocess.run([*_program(options), *map(str, args)], capture_output=True, timeout=60, **options)


def _program(options):
    """Return the command of the program: one that has been imported already, unless the environment tells at import."""
    is_cold = any(name in (options.get("env") or os.environ) for name in READ_AT_IMPORT)
    return PROGRAM if is_cold else [_warm_program()]


@functools.cache
def _warm_program():
    stack = ExitStack()
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    stack.enter_context(warm_program(folder))
    atexit.register(stack.close)
    return str(folder / "mistral-mlx")


def one_line(stderr):
    """Return the only line of stderr."""
    lines = stderr.decode().splitlines()
    assert len(lines) == 1, stderr.decode()
    return lines[0]


def interrupted(args, number, *, after):
    """Send the program a signal once `after()` is true, and return its result."""
    with subprocess.Popen([*PROGRAM, *map(str, args)], stdout=-1, stderr=-1, stdin=subprocess.DEVNULL) as process:
        while not after() and process.poll() is None:
            time.sleep(0.002)
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=60)
    return subprocess.CompletedProcess(args, process.returncode, stdout, stderr)
