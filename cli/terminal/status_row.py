"""A row that stays below a text while the text is written."""

from collections.abc import Callable

from .cells import first_cells, width
from .sanitize import inert
from .style import sgr

REVERSE = "7"
ERASE_BELOW = "\x1b[J"
# Make sure that there is a row below (the screen scrolls at its bottom, the column stays), and remember the place.
OPEN, CLOSE = "\x1bD\x1bM\x1b7\r\x1bD", "\x1b8"


class StatusRow:
    """Writes a text, and the row below it: `content(columns)`, drawn anew with every piece, always in one call.

    The row is erased before more text is written, so that it never scrolls away.
    """

    def __init__(self, write: Callable[[str], None], columns: Callable[[], int], content: Callable[[int], str]) -> None:
        self._write, self._columns, self._content = write, columns, content

    def write(self, text: str) -> None:
        """Write `text`, which may hold escape sequences, and draw the row."""
        n_cells = max(self._columns() - 1, 1)
        shown = first_cells(inert(self._content(n_cells)), n_cells)
        below = sgr(shown + " " * (n_cells - width(shown)), REVERSE)
        self._write(f"{ERASE_BELOW}{text}{OPEN}{below}{CLOSE}")

    def erase(self) -> None:
        """Remove the row."""
        self._write(ERASE_BELOW)
