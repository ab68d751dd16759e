"""What the environment says of the processes that share a model: which one this is, and by what they talk.

`mlx.launch` sets these variables, and a person can. Imports no MLX.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from mistral_mlx.errors import GroupError, OptionError, counted, shown

HOSTS, RANK = "MLX_HOSTFILE", "MLX_RANK"  # of the ring: a JSON file, [["IP:PORT", ...], ...] by rank; a number
DEVICES = "MLX_IBV_DEVICES"  # of JACCL (Thunderbolt): a JSON file with a list for each rank
WORLD = "MLX_WORLD_SIZE"  # of NCCL, which mlx.launch takes where there is CUDA
MAX_RANKS = 1024
JOIN_VARIABLE, JOIN_S, MAX_JOIN_S = "MISTRAL_MLX_JOIN_SECONDS", 9.0, 86400


@dataclass(frozen=True)
class Launched:
    """A process among `size` that share a model: rank 0 leads, the others follow."""

    rank: int
    size: int
    backend: str  # as mx.distributed calls it
    addresses: tuple[tuple[str, ...], ...] = ()  # of the ring, by rank

    @property
    def follows(self) -> bool:
        """Whether another process has the prompt and the answer."""
        return self.rank > 0


def launched() -> Launched | None:
    """Return what the environment says; None for a program that runs alone. Raises GroupError if it is no sense."""
    found = _found()
    return found if found is not None and found.size > 1 else None


def join_seconds() -> float:
    """Return how long a process waits for the others. Raises OptionError if the variable has another value."""
    value = os.environ.get(JOIN_VARIABLE, "")
    try:
        seconds = float(value or JOIN_S)
    except ValueError:
        seconds = 0
    if not 0 < seconds <= MAX_JOIN_S:
        raise OptionError(f"{JOIN_VARIABLE} is {shown(value)}; it must be a number of seconds, at most {MAX_JOIN_S}")
    return seconds


def _found() -> Launched | None:
    rank = os.environ.get(RANK)
    if rank is None:
        if HOSTS in os.environ:
            raise GroupError(f"{HOSTS} is set, but not {RANK}; set both, or none to run alone")
        return None
    if DEVICES in os.environ:
        return _checked(rank, len(_lists(DEVICES)), "jaccl")
    if HOSTS in os.environ:
        addresses = tuple(tuple(_address(address) for address in one) for one in _lists(HOSTS))
        return _checked(rank, len(addresses), "ring", addresses)
    if WORLD in os.environ:
        raise GroupError("NCCL is not supported here; add --backend ring to mlx.launch")
    raise GroupError(f"{RANK} is set, but not {HOSTS}; set both, or none to run alone")


def _checked(rank: str, size: int, backend: str, addresses: tuple[tuple[str, ...], ...] = ()) -> Launched:
    if size <= 1 and rank == "0":
        return Launched(0, 1, backend)
    if not rank.isascii() or not rank.isdigit() or int(rank) >= size or size > MAX_RANKS:
        raise GroupError(f"the rank is {shown(repr(rank))}; the group has {counted(size, 'rank')}, the first is 0")
    return Launched(int(rank), size, backend, addresses)


def _address(value: object) -> str:
    host, _, port = str(value).partition(":")
    if not isinstance(value, str) or not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise GroupError(f"{HOSTS} has the address {shown(value)}; IP:PORT is expected")
    return value


def _lists(variable: str) -> list[list[object]]:
    """Return the lists in the JSON file that a variable names; none if the file is empty, as it is for one rank."""
    path = os.environ[variable]
    try:
        text = Path(path).read_text("utf-8")
        lists = json.loads(text) if text.strip() else []
    except (OSError, ValueError, RecursionError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise GroupError(f"{variable} is {shown(path)}, which cannot be read: {shown(why)}") from error
    if not isinstance(lists, list) or not all(isinstance(one, list) and one for one in lists):
        raise GroupError(f"{variable} is {shown(path)}; a list in JSON with a list for each rank is expected")
    return lists
