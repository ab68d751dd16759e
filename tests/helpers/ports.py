"""Ports of the loopback for processes that listen there."""

import random
import socket
from contextlib import ExitStack, suppress

RANGE = 20_000, 32_000  # below those that systems give to connections, so that none of these takes one meanwhile


def free_ports(n: int) -> list[int]:
    """Return `n` ports, one after the other, that nobody uses now."""
    while True:
        first = random.SystemRandom().randrange(RANGE[0], RANGE[1] - n)
        ports = list(range(first, first + n))
        with ExitStack() as stack, suppress(OSError):
            for port in ports:
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return ports
