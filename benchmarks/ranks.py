"""Runs the processes that share a model on one machine, with a network between them: its delay, rate, their memory.

Without a delay they talk over the loopback device. With one, each has a network namespace of its own, and `delay.c` is
the network between these; that needs Linux and root.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from common import FOLDER

PORT = 32323  # of rank 0; the others follow
MEMORY_EVERY_S = 0.05


@dataclass(frozen=True)
class Network:
    """What lies between two processes: `delay_ms` one way, and a rate, of which 0 is none."""

    delay_ms: float = 0.0
    mbit_s: float = 0.0

    @property
    def is_loopback(self) -> bool:
        """Whether nothing is between them."""
        return not self.delay_ms and not self.mbit_s


@dataclass(frozen=True)
class Ended:
    """A process after its end; its memory was looked at while it ran."""

    output: str
    peak_nbytes: int  # resident, pages of files included
    anonymous_nbytes: int  # the most that was no page of a file


@contextmanager
def placed(network: Network, n: int, work: Path) -> Iterator[list[list[str]]]:
    """Make the network; yield for each rank the beginning of its command."""
    if network.is_loopback:
        yield [[] for _ in range(n)]
        return
    names = [f"mm{os.getpid()}-{rank}" for rank in range(n)]
    with ExitStack() as stack:
        for name in names:
            _ip("netns", "add", name)
            stack.callback(_ip, "netns", "delete", name)
        command = [_compiled(work), str(network.delay_ms * 1000), str(network.mbit_s), *names]
        switch = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE))
        stack.callback(switch.kill)
        assert switch.stdout
        if not switch.stdout.readline():
            raise SystemExit(f"{command[0]} ended with status {switch.wait()}")
        for rank, name in enumerate(names):
            _ip("-n", name, "address", "add", f"{_address(network, rank)}/24", "dev", "mm0")
            _ip("-n", name, "link", "set", "mm0", "up", "mtu", "60000")
            _ip("-n", name, "link", "set", "lo", "up")
        yield [["ip", "netns", "exec", name] for name in names]


def run(places: Sequence[Sequence[str]], network: Network, command: Sequence[object]) -> list[Ended]:
    """Run the same command as every rank, to its end. Raises SystemExit if one fails."""
    with tempfile.TemporaryDirectory() as folder:
        hosts = Path(folder) / "hosts.json"
        addresses = [f'["{_address(network, rank)}:{PORT + rank}"]' for rank in range(len(places))]
        hosts.write_text(f"[{', '.join(addresses)}]")
        shared = {"MLX_HOSTFILE": str(hosts)} if len(places) > 1 else {}
        processes = list[subprocess.Popen[bytes]]()
        for rank, place in enumerate(places):
            with open(f"{folder}/out{rank}", "wb") as out, open(f"{folder}/err{rank}", "wb") as err:
                environment = os.environ | shared | ({"MLX_RANK": str(rank)} if shared else {})
                words = [*place, *map(str, command)]
                processes.append(
                    subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environment)
                )
        return [
            _ended(process, anonymous, rank, Path(folder))
            for rank, (process, anonymous) in enumerate(zip(processes, _watched(processes), strict=True))
        ]


def program(*arguments: object) -> list[object]:
    """Return the command that runs our program."""
    return [sys.executable, "-c", "from mistral_mlx.cli.main import main; main()", *arguments]


def _watched(processes: Sequence["subprocess.Popen[bytes]"]) -> list[int]:
    """Wait until all have ended; return the most anonymous memory that each of them was seen to have."""
    most = [0] * len(processes)
    while any(os.waitid(os.P_PID, p.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None for p in processes):
        for rank, process in enumerate(processes):
            status = Path(f"/proc/{process.pid}/status").read_text()
            kilobytes = next((line.split()[1] for line in status.splitlines() if line.startswith("RssAnon")), "0")
            most[rank] = max(most[rank], int(kilobytes) * 1024)
        time.sleep(MEMORY_EVERY_S)
    return most


def _ended(process: "subprocess.Popen[bytes]", anonymous: int, rank: int, folder: Path) -> Ended:
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        said = "; ".join(path.read_text().strip() for path in sorted(folder.glob("err*")))
        raise SystemExit(f"rank {rank} ended with status {process.returncode}: {said}")
    return Ended((folder / f"out{rank}").read_text(), usage.ru_maxrss * 1024, anonymous)


def _address(network: Network, rank: int) -> str:
    return "127.0.0.1" if network.is_loopback else f"10.77.0.{rank + 1}"


def _ip(*words: str) -> None:
    if shutil.which("ip") is None:
        raise SystemExit("a delay between processes needs the program ip (package iproute2), and root")
    subprocess.run(["ip", *words], check=True)


def _compiled(work: Path) -> str:
    work.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cc", "-O2", "-Wall", str(FOLDER / "delay.c"), "-o", str(work / "delay")], check=True)
    return str(work / "delay")
