"""Lets signals wait until all processes that share a model have finished the step that they are in.

A step that one of them leaves in the middle would leave the others waiting for ever. And a step in which another
process does not go on, as its machine sleeps, would never end: a signal ends that, too, after a while.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

ACTS_S, STEP_S = 8.0, 0.1  # within which a signal has an effect; how often that is looked at

Handler = Callable[[int, FrameType | None], object]


class Alarm:
    """Calls `ring`, in a thread of its own, when a signal that is held has had no effect for `seconds`.

    Python's handlers run between two calls of C; that a signal has come is seen in its wakeup descriptor at once.
    """

    def __init__(self, ring: Callable[[], None], seconds: float = ACTS_S) -> None:
        self._ring, self._seconds = ring, seconds
        self._reads, self._writes = os.pipe()
        os.set_blocking(self._writes, False)
        self._n_acts, self._is_set = 0, False
        threading.Thread(target=self._listen, daemon=True).start()

    def set(self) -> int:
        """Listen from now on; return what has to be given back."""
        self._is_set = True
        return signal.set_wakeup_fd(self._writes, warn_on_full_buffer=False)

    def acted(self) -> None:
        """Note that signals can have an effect now."""
        self._n_acts += 1

    def unset(self, before: int) -> None:
        """Listen no more."""
        signal.set_wakeup_fd(before)
        self._is_set = False
        self.acted()

    def _listen(self) -> None:
        while True:
            if not set(os.read(self._reads, 64)).isdisjoint(SIGNALS) and self._is_stuck():
                self._ring()

    def _is_stuck(self) -> bool:
        n_acts = self._n_acts
        for _ in range(round(self._seconds / STEP_S)):  # a clock would go on while this process is stopped
            time.sleep(STEP_S)
            if not self._is_set or self._n_acts != n_acts:
                return False
        return True


class Held:
    """The signals that came meanwhile."""

    def __init__(self, alarm: Alarm) -> None:
        self.numbers: list[int] = []
        self._handlers: dict[int, Handler] = {}
        self._replaced: list[signal.Signals] = []
        self._alarm = alarm
        self._before: int | None = None  # the wakeup descriptor of somebody else

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
        self._before = self._alarm.set()

    def release(self) -> None:
        """Let the handlers act again; what one raises does not keep the next from being put back."""
        try:
            if self._before is not None:
                self._alarm.unset(self._before)
                self._before = None
            while self._replaced:
                signal.signal(self._replaced[-1], self._handlers[self._replaced[-1]])
                self._replaced.pop()
        except BaseException:
            self.release()
            raise

    def act(self) -> None:
        """Call the handlers of the signals that were noted."""
        self._alarm.acted()
        while self.numbers:
            number = self.numbers.pop(0)
            self._handlers[number](number, None)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.numbers.append(number)


@contextmanager
def held_signals(alarm: Alarm) -> Iterator[Held]:
    """Note signals within, and act on them at the end, unless an error ends it."""
    held = Held(alarm)
    try:
        held.hold()
        yield held
    finally:
        held.release()
    held.act()
