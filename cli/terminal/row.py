"""Writes the current row of a terminal: wraps words, and rewrites a draft after them.

A finished row is never changed, so that scrolling back shows everything once.
"""

import re
from collections.abc import Callable

from rich.cells import cell_len

from .style import sgr

# A line may break at spaces, and before and after a character of a script that is written without spaces.
_UNSPACED = "\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef"
_PIECES = re.compile(f" +|[{_UNSPACED}]|[^ {_UNSPACED}]+")
LAST_WORD = re.compile(f"[^ {_UNSPACED}]+$")


class Row:
    """Collects text; `flush` writes it in one call, so that nobody sees a half-drawn row."""

    def __init__(self, write: Callable[[str], None], columns: Callable[[], int]) -> None:
        self.hang = ""  # written at the start of each further row of a long line
        self._write, self._columns = write, columns
        self._column = 0  # number of final cells
        self._gap = 0  # spaces before the next word, if it fits into this row
        self._final = ""  # final, but not written yet
        self._draft = ""  # written after the final text; it may change

    @property
    def width(self) -> int:
        """Cells of a row. The last column stays empty, because the cursor has no position after it."""
        return max(self._columns() - 1, 8)

    @property
    def room(self) -> int:
        return self.width - self._column - self._gap

    def words(self, text: str, style: str = "") -> None:
        """Append words; a word that does not fit into this row begins the next one."""
        for piece in _PIECES.findall(text):
            if piece[0] == " ":
                self._gap += len(piece)
            else:
                self._word(piece, style)

    def verbatim(self, text: str, n_cells: int) -> None:
        """Append `text` of `n_cells` with its own escape sequences; only the terminal wraps it."""
        self._final += " " * self._gap + text
        self._column += self._gap + n_cells
        self._gap = 0

    def end(self) -> None:
        """End the row, without the spaces at its end."""
        self._final += "\n"
        self._column = self._gap = 0

    def flush(self, draft: str) -> None:
        """Write the final text, and after it as much of `draft` as fits into the row."""
        shown = first_cells(" " * self._gap + draft, self.width - self._column) if draft else ""
        text = self._final + shown
        if text.startswith(self._draft):  # a draft of plain words is already correct on the screen
            self._write(text[len(self._draft) :])
        else:
            self._write(f"\x1b[{cell_len(self._draft)}D\x1b[K{text}")
        self._final, self._draft = "", shown

    def _word(self, word: str, style: str) -> None:
        if cell_len(word) > self.room and self._column > cell_len(self.hang):
            self._break()
        while cell_len(word) > max(self.room, 1):  # longer than a row
            head = first_cells(word, max(self.room, 1)) or word[0]
            self.verbatim(sgr(head, style), cell_len(head))
            self._break()
            word = word[len(head) :]
        self.verbatim(sgr(word, style), cell_len(word))

    def _break(self) -> None:
        self._final += f"\n{self.hang}"
        self._column, self._gap = cell_len(self.hang), 0


def first_cells(text: str, n_cells: int) -> str:
    """Return the longest beginning of `text` that takes at most `n_cells`."""
    text = text[: max(n_cells, 0)]
    while cell_len(text) > n_cells:
        text = text[:-1]
    return text
