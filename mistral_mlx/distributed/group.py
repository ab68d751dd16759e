"""The processes that share a model, as each of them sees the others: sums, messages, transfers.

It is MLX's communication (mx.distributed), with two things of ours: who waits for a message uses no processor, and a
lost process is an error that says so.
"""

import json
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import cast

import mlx.core as mx
import numpy as np

from mistral_mlx import kernels
from mistral_mlx.errors import GroupError

FRAME = 512  # bytes of a message that go with its length in one sum
PART, FEW = 256 << 10, 32 << 10  # bytes of a sum for each rank, or of none; see kernels/src/mlx/ranks.cpp
ERRORS = ("[ring]", "[jaccl]", "[mpi]", "[nccl]", "[distributed]")  # how MLX's messages begin

LOST = "the connection to another process was lost: one of the {size} that share the model has ended"
LOOKS_S = 0.25  # between two looks whether a process is lost
FAILS_S = 3.0  # within which a step that runs fails by itself when a process is lost

Message = Mapping[str, object]


class Group:
    """The group after `join`. Its methods raise GroupError if a process of it is lost."""

    def __init__(self, rank: int, size: int, sockets: Sequence[int]) -> None:
        self.rank, self.size = rank, size
        self._sockets = sockets  # of MLX's ring; nothing of another backend
        self.is_over = False  # a process is lost, or all end: nothing more is exchanged
        self._why = LOST.format(size=size)

    @property
    def leads(self) -> bool:
        """Whether this is the process that has the prompt and the answer."""
        return self.rank == 0

    def from_first(self, x: mx.array | None, shape: tuple[int, ...], dtype: mx.Dtype) -> mx.array:
        """Return the array of rank 0 on every rank; the others give none."""
        mine = (mx.zeros(shape, dtype) if x is None else x).reshape(-1)
        if mine.nbytes <= FEW:
            return self._of_all(mine)[0].reshape(shape)
        n, parts = PART // mine.itemsize * self.size, list[mx.array]()
        with self.reporting():
            for at in range(0, mine.size, n):
                parts.append(mx.distributed.all_sum(mine[at : at + n]))
                mx.eval(parts[-1])
        return mx.concatenate(parts).reshape(shape)

    def any(self, flag: bool) -> bool:
        """Return whether `flag` is set on any rank."""
        return any(flag for (flag,) in self.gather([flag]))

    def gather(self, numbers: Sequence[int]) -> list[list[int]]:
        """Return the numbers of every rank, as many on each, in the order of the ranks."""
        return cast(list[list[int]], self._of_all(mx.array(np.array(numbers, np.int64))).tolist())

    def texts(self, text: str) -> list[str]:
        """Return the text of every rank, or its beginning, in the order of the ranks."""
        mine = text.encode()[:FRAME].ljust(FRAME, b"\0")
        rows = np.asarray(self._of_all(mx.array(np.frombuffer(mine, np.uint8))))
        return [row.tobytes().rstrip(b"\0").decode("utf-8", "ignore") for row in rows]

    def message(self, message: Message | None = None) -> Message:
        """Return the message of rank 0 on every rank; the others give none."""
        text = b"" if message is None else json.dumps(message, separators=(",", ":")).encode()
        frame = np.zeros(FRAME, np.uint8)
        if message is not None:
            first = len(text).to_bytes(4, "little") + text[: FRAME - 4]
            frame[: len(first)] = np.frombuffer(first, np.uint8)
        data = self._bytes(frame if message is not None else None, FRAME)
        n, begun = int.from_bytes(data[:4], "little"), data[4:]
        if n > len(begun):
            rest = np.frombuffer(text[FRAME - 4 :], np.uint8) if message is not None else None
            begun += self._bytes(rest, n - len(begun))
        try:
            return cast(Message, json.loads(begun[:n]))
        except ValueError as error:
            self.is_over = True
            raise GroupError("what rank 0 says makes no sense; do other processes use the same ports?") from error

    def send(self, x: mx.array) -> None:
        """Send an array to the next rank; after the last comes rank 0."""
        with self.reporting():
            mx.eval(mx.distributed.send(x, (self.rank + 1) % self.size))

    def receive(self, shape: tuple[int, ...], dtype: mx.Dtype) -> mx.array:
        """Return what the rank before this one sends; before rank 0 comes the last."""
        with self.reporting():
            x = mx.distributed.recv(shape, dtype, (self.rank - 1) % self.size)
            mx.eval(x)
        return x

    def wait(self) -> None:
        """Wait until something arrives, without using a processor."""
        if self._sockets:
            poll = select.poll()
            for number in self._sockets:
                poll.register(number, select.POLLIN)
            poll.poll()

    def watch(self, on_closed: Callable[[], None], on_lost: Callable[[], None]) -> None:
        """Call `on_closed` in a thread of its own when a connection is closed, and then `on_lost`.

        The second only if no step fails by itself meanwhile, and neither after `is_over`.
        """
        if self._sockets:
            threading.Thread(target=self._watch, args=(on_closed, on_lost), daemon=True).start()

    def cut(self, why: str) -> bool:
        """Close all connections: a step that waits for another process raises GroupError, which says `why`.

        Return whether that can be done: only the ring has connections of its own.
        """
        self._why = why
        for number in self._sockets:
            with socket.socket(fileno=os.dup(number)) as duplicate, suppress(OSError):
                duplicate.shutdown(socket.SHUT_RDWR)
        return bool(self._sockets)

    def settle(self) -> None:
        """Where the kernels do the work, wait in the system; all have chosen their devices by now.

        MLX's threads ask a socket over and over whether it has data. As no socket has to receive and to send at a time,
        they can as well wait for it, and leave the processor to those that compute.
        """
        if kernels.uses_native():
            for number in self._sockets:
                os.set_blocking(number, True)

    @contextmanager
    def reporting(self) -> Iterator[None]:
        """Raise GroupError if MLX fails within because a process is lost."""
        try:
            yield
        except RuntimeError as error:
            if not str(error).startswith(ERRORS):
                raise
            self.is_over = True
            raise GroupError(self._why, is_known=True) from error

    def _of_all(self, x: mx.array) -> mx.array:
        """Return the few numbers ``[n]`` of every rank, ``[size, n]``: half the rounds of a sum."""
        with self.reporting():
            found = mx.distributed.all_gather(x)
            mx.eval(found)
        return found.reshape(self.size, -1)

    def _bytes(self, mine: "np.ndarray[tuple[int, ...], np.dtype[np.uint8]] | None", n: int) -> bytes:
        return np.asarray(self.from_first(None if mine is None else mx.array(mine), (n,), mx.uint8)).tobytes()

    def _watch(self, on_closed: Callable[[], None], on_lost: Callable[[], None]) -> None:
        while not self.is_over and not any(map(_is_closed, self._sockets)):
            time.sleep(LOOKS_S)
        if not self.is_over:
            on_closed()
        time.sleep(FAILS_S)
        if not self.is_over:
            self.is_over = True
            on_lost()


def _is_closed(number: int) -> bool:
    """Return whether the other end of a socket has ended, and all that it sent was read."""
    with socket.socket(fileno=os.dup(number)) as duplicate:
        try:
            return duplicate.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True
