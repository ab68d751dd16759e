"""Lets signals wait until all processes that share a model have finished the step that they are in.

A step that one of them leaves in the middle would leave the others waiting for ever.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Handler = Callable[[int, FrameType | None], object]


class Held:
    """The signals that came meanwhile."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self._handlers: dict[int, Handler] = {}
        self._replaced: list[signal.Signals] = []

    def hold(self) -> None:
        """Note signals from now on, where a handler of Python's would act on them."""
        if threading.current_thread() is not threading.main_thread():
            return  # handlers run in the main thread: none can raise here
        for number in SIGNALS:
            handler = signal.getsignal(number)
            if callable(handler):
                self._handlers[number] = handler
                self._replaced.append(number)
                signal.signal(number, self._note)

    def release(self) -> None:
        """Let the handlers act again; what one raises does not keep the next from being put back."""
        try:
            while self._replaced:
                signal.signal(self._replaced[-1], self._handlers[self._replaced[-1]])
                self._replaced.pop()
        except BaseException:
            self.release()
            raise

    def act(self) -> None:
        """Call the handlers of the signals that were noted."""
        while self.numbers:
            number = self.numbers.pop(0)
            self._handlers[number](number, None)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.numbers.append(number)


@contextmanager
def held_signals() -> Iterator[Held]:
    """Note signals within, and act on them at the end, unless an error ends it."""
    held = Held()
    try:
        held.hold()
        yield held
    finally:
        held.release()
    held.act()
