"""Standard error: remarks, errors and progress; never the output of a command."""

import os
import sys
import textwrap
from collections.abc import Iterable

from .bar import DELAY_S, Bar
from .sanitize import inert
from .size import columns
from .streams import write_error
from .style import BOLD, DIM, sgr

PREFIX, MARK = "mistral-mlx: ", "· "  # before a remark, and before one in a chat


class Notes:
    """Writes to stderr for one command; `quiet` leaves only errors and what was asked for.

    In a chat (`in_chat`) on a terminal remarks are dim and have a mark instead of the program's name before them. If
    `is_plain`, they are like those of other commands, and there is no progress bar: a screen reader would read it.
    """

    def __init__(self, *, quiet: bool = False, in_chat: bool = False) -> None:
        self.quiet, self.is_plain = quiet, False
        self._in_chat = in_chat and sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._bar: Bar | None = None

    def say(self, text: str) -> None:
        """Write a remark of one line, unless quiet."""
        if not self.quiet:
            self.always(text)

    def error(self, text: str) -> None:
        """Write an error of one line."""
        self._note(f"error: {text}", BOLD)

    def always(self, text: str) -> None:
        """Write one line, also when quiet."""
        self._note(text, DIM)

    def _note(self, text: str, style: str) -> None:
        if self._bar is not None:
            self._bar.hide()
        if self._in_chat and not self.is_plain:
            write_error(f"{sgr(_wrapped(MARK, text), style)}\n")
        else:
            note(text)

    def report(self, lines: Iterable[str]) -> None:
        """Write lines without the program's name before them, unless quiet."""
        for line in () if self.quiet else lines:
            write_error(f"{inert(line)}\n")

    def progress(self, unit: str = "", *, has_rate: bool = False, delay_s: float = DELAY_S) -> Bar:
        """Return a progress bar that counts in `unit`, a context; it shows nothing in a pipe or when quiet."""
        is_silent = self.quiet or self.is_plain or not sys.stderr.isatty()
        self._bar = Bar(unit, has_rate=has_rate, silent=is_silent, delay_s=delay_s)
        return self._bar


def note(text: str) -> None:
    """Write a remark of one line to stderr, where no Notes are at hand."""
    write_error(f"{_wrapped(PREFIX, text)}\n")


def _wrapped(first: str, text: str) -> str:
    """Return `first` and `text` in one line, which a terminal gets in rows that break between words."""
    return wrapped(first + inert(text).replace("\n", " "), "  ")


def wrapped(line: str, indent: str) -> str:
    """Return `line` in rows that break between words, on a terminal; the further ones begin with `indent`."""
    if not sys.stderr.isatty():
        return line
    width = max(columns() - 1, 2 * len(PREFIX))
    rows = textwrap.wrap(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return "\n".join(rows)
