"""Work that goes on behind a prompt; knows nothing of what it is."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Result = TypeVar("Result")


class Background(Generic[Result]):
    """Calls `work` once, in a thread after `start` or else in `result`; `on_end` is then told, in the same thread."""

    def __init__(self, work: Callable[[], Result]) -> None:
        self._work = work
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._results: list[Result] = []
        self.error: BaseException | None = None
        self.on_end: Callable[[], None] = lambda: None

    @property
    def ended(self) -> bool:
        return self._ended.is_set()

    def start(self) -> None:
        """Begin, if that has not been done."""
        if self._thread is None and not self.ended:
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()

    def result(self) -> Result:
        """Return what `work` returned, or raise what it raised; waits in short steps, which a signal can end."""
        self.start()
        while not self._ended.wait(0.05):
            pass
        if self.error:
            raise self.error
        return self._results[0]

    def _run(self) -> None:
        try:
            self._results.append(self._work())
        except BaseException as error:  # whatever it is, who waits must not wait for ever
            self.error = error
        self._ended.set()
        self.on_end()
