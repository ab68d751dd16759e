"""Standard error: remarks, errors and progress; never the output of a command."""

import os
import sys
from collections.abc import Iterable

from .bar import DELAY_S, Bar
from .sanitize import inert


class Notes:
    """Writes to stderr for one command; `quiet` leaves only errors and what was asked for."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self._bar: Bar | None = None

    def say(self, text: str) -> None:
        """Write a remark of one line, unless quiet."""
        if not self.quiet:
            self.always(text)

    def error(self, text: str) -> None:
        """Write an error of one line."""
        self.always(f"error: {text}")

    def always(self, text: str) -> None:
        """Write one line, also when quiet."""
        if self._bar is not None:
            self._bar.hide()
        note(text)

    def report(self, lines: Iterable[str]) -> None:
        """Write lines without the program's name before them, unless quiet."""
        for line in () if self.quiet else lines:
            _write(inert(line))

    def progress(self, unit: str = "", *, has_rate: bool = False, delay_s: float = DELAY_S) -> Bar:
        """Return a progress bar that counts in `unit`, a context; it shows nothing in a pipe or when quiet."""
        self._bar = Bar(unit, has_rate=has_rate, silent=self.quiet or not sys.stderr.isatty(), delay_s=delay_s)
        return self._bar


def note(text: str) -> None:
    """Write a remark of one line to stderr, where no Notes are at hand."""
    _write(f"mistral-mlx: {inert(text)}".replace("\n", " "))


def _write(line: str) -> None:
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:  # that nobody can read it is no reason to fail
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
