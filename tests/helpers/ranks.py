"""Starts processes that share a model, by hand: each with its rank and the file of all addresses.

Every wait ends after a while, and every process is killed at the end.
"""

import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from helpers.cli import PROGRAM
from helpers.ports import free_ports
from helpers.shared_texts import SCENARIOS

DRIVER = Path(__file__).with_name("rank_driver.py")
TESTS = DRIVER.parents[1]
TIMEOUT_S = 120  # far more than any of it takes; the machine may be busy


class Ended(NamedTuple):
    """What a process left; status None: it did not end by itself."""

    status: int | None
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Job:
    """A model that the processes share, and what rank 0 does with it, there and then with the same model alone."""

    folder: Path
    scenario: str  # a function of `helpers.shared_texts`
    args: Mapping[str, object] = field(default_factory=dict)
    wanted: Mapping[str, object] = field(default_factory=dict)  # fields of `agree.Wanted`
    memory: Sequence[int | None] | None = None  # of each rank, in place of what there is

    def __post_init__(self) -> None:
        assert self.scenario in SCENARIOS, self.scenario


class Outcome(NamedTuple):
    """What came of a job."""

    shared: object  # what the scenario returned
    alone: object  # what it returned with the whole model in one process
    ranks: list[dict[str, object]]  # what each process noted: see rank_driver.py


@contextmanager
def ranks(
    n: int, command: Sequence[object], *, env: Mapping[str, str] | None = None
) -> Iterator[list[subprocess.Popen]]:
    """Yield `n` processes of `command` with pipes for their streams; they are killed at the end."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        hosts, home = Path(folder) / "hosts.json", Path(folder) / "home"
        hosts.write_text(json.dumps([[f"127.0.0.1:{port}"] for port in free_ports(n)]))
        own = {"MLX_HOSTFILE": str(hosts), "MISTRAL_MLX_HOME": str(home), "MISTRAL_MLX_JOIN_SECONDS": "60"}
        processes = list[subprocess.Popen]()
        for rank in range(n):
            process = subprocess.Popen(
                list(map(str, command)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**os.environ, **own, **(env or {}), "MLX_RANK": str(rank)},
            )
            processes.append(process)
            stack.callback(_kill, process)
        yield processes


def run_ranks(
    n: int, *args: object, input: str = "", env: Mapping[str, str] | None = None, timeout: int = TIMEOUT_S
) -> list[Ended]:
    """Run the program in `n` processes with one thread each, `input` for the first; return what each has left."""
    with ranks(n, [*PROGRAM, *args, "--threads", 1], env=env) as processes:
        return ended(processes, input, timeout=timeout)


def ended(processes: Sequence[subprocess.Popen], input: str = "", *, timeout: int = TIMEOUT_S) -> list[Ended]:
    """Give `input` to the first process, wait for the end of all, and return what each has left.

    Those that take more than `timeout` seconds are killed.
    """
    found: list[Ended | None] = [None] * len(processes)

    def wait(rank: int) -> None:
        process, status = processes[rank], None
        text: bytes | None = input.encode() if rank == 0 else b""
        for _ in range(timeout):  # a second each: where all are stopped for minutes, that is one of them
            with suppress(subprocess.TimeoutExpired):
                given, text = text, None  # it is taken once, and sent on by later calls
                stdout, stderr = process.communicate(given, timeout=1)
                status = process.returncode
                break
        else:
            process.kill()
            stdout, stderr = process.communicate()
        found[rank] = Ended(status, stdout.decode(), stderr.decode())

    threads = [threading.Thread(target=wait, args=(rank,)) for rank in range(len(processes))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [one for one in found if one is not None]


def launch(n: int, *args: object, timeout: float = TIMEOUT_S) -> Ended:
    """Run the program in `n` processes by MLX's launcher; return what they wrote together, and its own status.

    The launcher spins where its input has ended: it gets a pipe that stays open. Its processes are of its session.
    """
    with tempfile.TemporaryDirectory() as folder:
        launcher = [Path(sys.executable).with_name("mlx.launch"), "-n", n, "--starting-port", free_ports(n)[0]]
        command = [*launcher, "--", *PROGRAM, *args, "--threads", 1]
        with (Path(folder) / "out").open("wb+") as out, (Path(folder) / "err").open("wb+") as err:
            process = subprocess.Popen(
                list(map(str, command)),
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=err,
                env={**os.environ, "MISTRAL_MLX_HOME": folder, "MISTRAL_MLX_JOIN_SECONDS": "60"},
                start_new_session=True,
            )
            try:
                status = process.wait(timeout)
            except subprocess.TimeoutExpired:
                status = None
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                _kill(process)
            texts = [(file.seek(0), file.read().decode())[1] for file in (out, err)]
    return Ended(status, *texts)


def drive(
    n: int, jobs: Mapping[str, Job], *, native: Sequence[bool] | bool = True, env: Mapping[str, str] | None = None
) -> dict[str, Outcome]:
    """Do the jobs, one after the other, in one start of `n` processes; return the outcomes by name.

    Without `native` a process computes with MLX's operations and NumPy, in the steps that a GPU takes.
    """
    with tempfile.TemporaryDirectory() as folder:
        todo = Path(folder) / "jobs"
        todo.write_bytes(pickle.dumps((dict(jobs), [native] * n if isinstance(native, bool) else native)))
        paths = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))
        with ranks(n, [sys.executable, DRIVER, todo], env={"PYTHONPATH": paths, **(env or {})}) as processes:
            left = ended(processes)
        assert [one.status for one in left] == [0] * n, "\n".join(f"{one.status} {one.stderr[-3000:]}" for one in left)
        of_ranks = [pickle.loads(Path(f"{todo}.{rank}").read_bytes()) for rank in range(n)]
    return {name: Outcome(*of_ranks[0][name].pop("results"), [of_rank[name] for of_rank in of_ranks]) for name in jobs}


def _kill(process: subprocess.Popen) -> None:
    process.kill()
    process.communicate()
