"""Shows the reasoning of a model on stderr while it comes: dim on a terminal, and apart from the answer."""

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from .sanitize import inert
from .size import columns
from .streams import write_error
from .style import DIM, Style, sgr

if TYPE_CHECKING:
    from .row import Row

SHOW = ("show", "hide")


SIGN = "thinking …"
WIPE = "\r\x1b[K"


class Thoughts:
    """Writes the reasoning of one answer; `hidden` writes nothing, but a `sign` on a terminal before the answer.

    With `screen`, which writes to the terminal, it is broken between words.
    """

    def __init__(
        self, *, hidden: bool = False, sign: bool = False, screen: Callable[[str], None] | None = None
    ) -> None:
        self._hidden = hidden
        self._is_terminal = sys.stderr.isatty()
        self._is_dim = self._is_terminal and os.environ.get("TERM") != "dumb"
        self._has_sign = hidden and sign and self._is_dim  # later it would wipe what the answer has in its row
        self._screen = screen if self._is_dim else None
        self._row = _row_of(self._screen) if self._screen else None
        self._begun = False
        self._held = ""  # line feeds, which are written only before more text

    def write(self, text: str) -> None:
        """Write a piece of reasoning."""
        if self._has_sign and text and not self._begun:
            self._begun = True
            self._put(SIGN)
        if self._hidden or not text:
            return
        text = self._held + text
        written = (text if self._begun else text.lstrip("\n")).rstrip("\n")
        self._held = text[len(text.rstrip("\n")) :] if self._begun or written else ""
        if written:
            self._begun = True
            self._put(written)

    def end(self) -> None:
        """End the reasoning, if there was any: a blank line on a terminal, where the answer follows."""
        if self._begun and self._hidden:
            self._write(WIPE)
        elif self._begun:
            self._put("\n\n" if self._is_terminal and sys.stdout.isatty() else "\n")
        self._begun, self._has_sign, self._held = False, False, ""

    def _put(self, text: str) -> None:
        if self._row is not None:
            _add(text, self._row)
            return
        shown = inert(text) if self._is_terminal else text
        self._write(sgr(shown, DIM) if self._is_dim and text.strip() else shown)

    def _write(self, text: str) -> None:
        (self._screen or write_error)(text)


def _add(text: str, row: "Row") -> None:
    """Write `text` to `row`, whose words may go on in the next text."""
    first, *lines = inert(text).expandtabs(4).split("\n")
    row.words(first, Style(DIM))
    for line in lines:
        row.verbatim("", 0)  # also an empty row
        row.end()
        row.words(line, Style(DIM))
    row.flush("")


def _row_of(screen: Callable[[str], None]) -> "Row":
    from .row import Row  # which imports rich, for a chat alone

    return Row(screen, lambda: columns() - 1)
