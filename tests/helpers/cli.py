"""Runs the program in its own process, with input, signals and a time limit."""

import subprocess
import sys
import time

PROGRAM = [sys.executable, "-c", "from mistral_mlx.cli.main import main; main()"]


def run(*args, input=b"", **options):
    """Run the program; `input` None leaves stdin closed."""
    if input is None:
        options["stdin"] = subprocess.DEVNULL
    else:
        options["input"] = input
    return subprocess.run([*PROGRAM, *map(str, args)], capture_output=True, timeout=60, **options)


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
