"""The signals that end the program, as an exception in the main thread."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from mistral_mlx.cli.statuses import SIGNALLED

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # that end the program
NOTHING_LEFT = "nothing half-written is left"


class Interrupted(BaseException):
    """Raised in the main thread by a signal that ends the program; handlers undo what was begun."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number
        self.status = SIGNALLED + number
        self.remark = "interrupted"  # for the user, when the command ends


_ends: list[tuple[int, str]] = []  # the status and the remark of an end that is no signal's


def expect_end(status: int, remark: str) -> None:
    """Let a polite kill mean an end with a status and a remark of its own, unless it means another already."""
    if not _ends:
        _ends.append((status, remark))


def expect_no_end() -> None:
    """Let a polite kill mean what it means otherwise."""
    _ends.clear()


def end_now() -> None:
    """End the program as a polite kill does, from any thread."""
    os.kill(os.getpid(), signal.SIGTERM)


def raise_on_signals() -> None:
    """Make Ctrl-C, a closed terminal and a polite kill raise Interrupted."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        interrupted = Interrupted(number)
        if _ends and number == signal.SIGTERM:
            interrupted.status, interrupted.remark = _ends[0]
        raise interrupted

    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup means it
            signal.signal(number, interrupt)


def ignore_signals() -> None:
    """Let no signal keep the program from saying how it ends."""
    for number in SIGNALS:
        while signal.getsignal(number) is not _nothing:
            with suppress(Interrupted):  # it may come at this moment
                signal.signal(number, _nothing)


def _nothing(number: int, frame: FrameType | None) -> None:
    """Python complains of a signal that it has noted before it is ignored; not of one that does nothing."""


@contextmanager
def whole_or_nothing(state: Callable[[], str] = lambda: NOTHING_LEFT) -> Iterator[None]:
    """Let the remark on an interrupt say that what is being written is written whole or not at all.

    `state` is called on an interrupt; it says what there is then.
    """
    try:
        yield
    except Interrupted as interrupt:
        interrupt.remark = f"interrupted; {state()}"
        raise


@contextmanager
def left_to_child() -> Iterator[None]:
    """Leave Ctrl-C to a program that has the terminal meanwhile; it does not inherit this, as it would SIG_IGN."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, lambda number, frame: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let signals wait until a short piece of work is done."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
