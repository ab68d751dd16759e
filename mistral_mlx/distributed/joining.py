"""How a process joins the others: by MLX, but not for ever, and with sockets that notice when a machine is gone."""

import os
import socket
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress

import mlx.core as mx

from mistral_mlx import kernels
from mistral_mlx.errors import GroupError

from .group import Group
from .launched import Launched

KEEPALIVE = {"TCP_KEEPIDLE": 3, "TCP_KEEPALIVE": 3, "TCP_KEEPINTVL": 2, "TCP_KEEPCNT": 3}  # seconds, and a count
GONE_S = 9  # after which data that nobody has confirmed ends a connection
TCP_RXT_CONNDROPTIME = 0x80  # the same on macOS, which Python does not name
IN_USE, NO_SUCH_ADDRESS = "(error: 98)", "(error: 99)"  # of bind on Linux
IN_USE_MACOS, NO_SUCH_ADDRESS_MACOS = "(error: 48)", "(error: 49)"


def join(me: Launched, seconds: float) -> Group:
    """Wait for the other processes, at most that long, and return the group.

    Raises GroupError if they do not come, or cannot be reached. After that the process must end without waiting for
    its threads.
    """
    if not kernels.native.built:
        raise GroupError("a model is shared by processes only where the compiled kernels are installed; see 'doctor'")
    before, failures = set(_sockets()), list[Exception]()
    thread = threading.Thread(target=_join, args=(me.backend, failures), daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise GroupError(
            f"rank {me.rank} of {me.size} has waited {seconds:g} seconds for the others; start all within that time, "
            "and see whether one of them could not start",
            is_known=True,
        )
    if failures:
        raise GroupError(_reason(me, str(failures[0]))) from failures[0]
    group = mx.distributed.init()
    sockets = sorted(set(_sockets()) - before) if me.backend == "ring" else []
    for number in sockets:
        _configure(number)
    return Group(group.rank(), group.size(), sockets)


def _join(backend: str, failures: list[Exception]) -> None:
    try:
        kernels.native.ext.join_ranks(backend)
    except (RuntimeError, ValueError) as error:  # what C++ calls an invalid argument is a ValueError
        failures.append(error)


def _reason(me: Launched, error: str) -> str:
    if me.backend == "ring" and error.endswith((IN_USE, IN_USE_MACOS)):
        return f"{me.addresses[me.rank][0]} is in use by another program; take other ports: mlx.launch --starting-port"
    if me.backend == "ring" and error.endswith((NO_SUCH_ADDRESS, NO_SUCH_ADDRESS_MACOS)):
        return f"{me.addresses[me.rank][0]} is not an address of this machine, which has rank {me.rank}"
    return f"rank {me.rank} of {me.size} cannot reach the others: {error}"


def _sockets() -> Iterator[int]:
    """Yield the numbers of all connected sockets of this process; MLX leaves those of vain attempts open."""
    for name in os.listdir("/dev/fd"):
        try:
            if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                with socket.socket(fileno=os.dup(int(name))) as duplicate:
                    duplicate.getpeername()
                yield int(name)
        except OSError:  # it was that of the listing itself, or is not connected
            continue


def _configure(number: int) -> None:
    """Let a socket notice within ten seconds that a machine is gone."""
    with socket.socket(fileno=os.dup(number)) as duplicate, suppress(OSError):
        duplicate.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEPALIVE.items():
            if hasattr(socket, name):
                duplicate.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            duplicate.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, GONE_S * 1000)
        elif sys.platform == "darwin":
            duplicate.setsockopt(socket.IPPROTO_TCP, TCP_RXT_CONNDROPTIME, GONE_S)
