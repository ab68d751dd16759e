"""The progress callback: (what is being done, how much of it is done, of how much)."""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]


class Report:
    """Calls `progress` with a larger `done` each time: a count that does not grow is left out."""

    def __init__(self, progress: Progress | None, what: str, total: int) -> None:
        self._progress, self._what, self._total = progress, what, total
        self._last = -1

    def __call__(self, done: int) -> None:
        if self._progress is not None and done > self._last:
            self._last = done
            self._progress(self._what, done, self._total)

    def share(self, start: int, n: int, n_shares: int, n_done: int) -> None:
        """Report that `n_done` of `n_shares` equal shares of the `n` after `start` are done."""
        self(start + n * n_done // n_shares)
