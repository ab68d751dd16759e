"""Starts processes that share a model, each by hand or all by mlx.launch, and waits for their ends."""

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from helpers.cli import PROGRAM
from helpers.ports import free_ports

LAUNCHER = Path(sys.executable).with_name("mlx.launch")
BEGUN = "processes share the model"
LIMIT_S = 10  # in which all have to be gone


@dataclass
class Ended:
    """The end of a process; `stderr` without the remark that all has begun well."""

    status: int
    stdout: str
    stderr: str


class Ranks:
    """Processes that were started by hand, each with a file as its own standard error."""

    def __init__(self, folder, n, args, *, setup=None, late=None, **variables):
        self._folder, self._args, self._setup, self.processes = folder, args, setup or {}, {}
        hosts = folder / "hosts.json"
        hosts.write_text(json.dumps([[f"127.0.0.1:{port}"] for port in free_ports(n)]))
        self._env = {**os.environ, **variables, "MLX_HOSTFILE": str(hosts)}
        for rank in range(n):
            if rank != late:
                self.start(rank)

    def start(self, rank):
        args = self._args[rank] if isinstance(self._args, dict) else self._args
        code = f"{self._setup.get(rank, '')}\n{PROGRAM[2]}"
        with (self._folder / f"stderr-{rank}").open("wb") as stderr:
            self.processes[rank] = subprocess.Popen(
                [PROGRAM[0], "-c", code, *map(str, args)],
                env={**self._env, "MLX_RANK": str(rank)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
            )

    def said(self, rank=0):
        return (self._folder / f"stderr-{rank}").read_text()

    def wait_until_begun(self):
        wait_until(lambda: BEGUN in self.said())

    def signal(self, rank, number):
        self.processes[rank].send_signal(number)

    def ended(self):
        """Wait for the ends of all, in the order of their ranks. Fails if one is there after the limit."""
        until = time.monotonic() + LIMIT_S
        found = []
        for rank in sorted(self.processes):
            process = self.processes[rank]
            stdout, _ = process.communicate(timeout=max(0.1, until - time.monotonic()))
            lines = [line for line in self.said(rank).splitlines() if BEGUN not in line]
            found.append(Ended(process.returncode, stdout.decode(), "\n".join(lines)))
        return found


@contextmanager
def started(*args, **options):
    """Yield `Ranks`; none of their processes outlives it."""
    ranks = Ranks(*args, **options)
    try:
        yield ranks
    finally:
        for process in ranks.processes.values():
            process.kill()
            process.communicate()


class Group:
    """Processes that mlx.launch started."""

    def __init__(self, n, *command):
        port = free_ports(n)[0]
        program = command if command[0] == "sh" else (*PROGRAM, *command)
        self.process = subprocess.Popen(
            [LAUNCHER, "-n", str(n), "--starting-port", str(port), "--", *map(str, program)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        )
        self.stderr = b""

    def wait_for(self, text):
        while text not in self.stderr.decode():
            data = os.read(self.process.stderr.fileno(), 4096)
            assert data, self.stderr.decode()
            self.stderr += data

    def children(self):
        """Return the processes by their ranks."""
        every = psutil.Process(self.process.pid).children(recursive=True)
        return {int(child.environ()["MLX_RANK"]): child for child in every}

    def ended(self):
        """Wait for the end; return stdout, and the lines of stderr that the launcher did not write itself."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        stdout, stderr = self.process.communicate(timeout=LIMIT_S)
        assert psutil.wait_procs(children, timeout=1)[1] == []
        lines = (self.stderr + stderr).decode().splitlines()
        return stdout.decode(), [line for line in lines if line and "[WARN]" not in line and BEGUN not in line]


@contextmanager
def launched(n, *command):
    """Yield a `Group`; none of its processes outlives it."""
    group = Group(n, *command)
    try:
        yield group
    finally:
        if group.process.poll() is None:
            for process in psutil.Process(group.process.pid).children(recursive=True):
                process.kill()
        group.process.kill()
        group.process.communicate()


def wait_until(is_so, *, limit_s=30):
    until = time.monotonic() + limit_s
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.01)
