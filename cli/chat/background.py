"""Work in a daemon thread, and its result as a Future."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Generic, TypeVar

Result = TypeVar("Result")
STEP_S = 0.05  # a signal handler runs between two waits


class Background(Generic[Result]):
    """Calls `work` once, in a thread; `start` and `result` start it. Then calls `on_end` in the same thread."""

    def __init__(self, work: Callable[[], Result]) -> None:
        self._future = Future[Result]()
        # An executor would wait for its thread when the program ends.
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        self.on_end: Callable[[], None] = lambda: None

    @property
    def ended(self) -> bool:
        return self._future.done()

    @property
    def error(self) -> BaseException | None:
        """What `work` raised; None while it runs."""
        return self._future.exception() if self.ended else None

    def start(self) -> None:
        """Begin, unless that has been done."""
        if self._thread.ident is None:
            self._thread.start()

    def result(self) -> Result:
        """Return what `work` returned, or raise what it raised; waits in short steps, which a signal can end."""
        self.start()
        while not wait([self._future], STEP_S).done:
            pass
        return self._future.result()

    def _run(self, work: Callable[[], Result]) -> None:
        try:
            self._future.set_result(work())
        except BaseException as error:  # whatever it is: nobody may wait for ever
            self._future.set_exception(error)
        self.on_end()
