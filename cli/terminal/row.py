"""The row of a terminal that is being written: words wrap, and a draft may follow them that is rewritten in place.

A row that has ended is never touched again, so that scrolling back shows each thing once.
"""

import re
from collections.abc import Callable

from rich.cells import cell_len

# A line may break at spaces, and on either side of a character of scripts written without them.
_UNSPACED = "\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef"
_PIECES = re.compile(f" +|[{_UNSPACED}]|[^ {_UNSPACED}]+")
LAST_WORD = re.compile(f"[^ {_UNSPACED}]+$")
RESET = "\x1b[0m"


def sgr(text: str, style: str) -> str:
    """Return `text` between the sequences that set `style`, such as "1;36", and reset it."""
    return f"\x1b[{style}m{text}{RESET}" if style and text else text


class Row:
    """Collects what is to be written; `flush` writes it at once, so that no half-drawn row is ever seen."""

    def __init__(self, write: Callable[[str], None], columns: Callable[[], int]) -> None:
        self.hang = ""  # begins the rows that a long line goes on in
        self._write, self._columns = write, columns
        self._column = 0  # cells that are final
        self._gap = 0  # spaces before the next word, if it stays on this row
        self._final = ""  # not written yet
        self._draft = ""  # written behind what is final, and not final itself

    @property
    def width(self) -> int:
        """Cells of a row; the last column stays empty, because a cursor behind it is nowhere."""
        return max(self._columns() - 1, 8)

    @property
    def room(self) -> int:
        return self.width - self._column - self._gap

    def words(self, text: str, style: str = "") -> None:
        """Append words, each on the next row if it does not fit into this one."""
        for piece in _PIECES.findall(text):
            if piece[0] == " ":
                self._gap += len(piece)
            else:
                self._word(piece, style)

    def verbatim(self, text: str, n_cells: int) -> None:
        """Append `text`, which has its own sequences, takes `n_cells` and wraps where the terminal wraps it."""
        self._final += " " * self._gap + text
        self._column += self._gap + n_cells
        self._gap = 0

    def end(self) -> None:
        """End the row; spaces at its end are dropped."""
        self._final += "\n"
        self._column = self._gap = 0

    def flush(self, draft: str) -> None:
        """Write what is final and, as far as it fits into the row, `draft` behind it."""
        shown = _first_cells(" " * self._gap + draft, self.width - self._column) if draft else ""
        text = self._final + shown
        if text.startswith(self._draft):  # plain words become final as they stand
            self._write(text[len(self._draft) :])
        else:
            self._write(f"\x1b[{cell_len(self._draft)}D\x1b[K{text}")
        self._final, self._draft = "", shown

    def _word(self, word: str, style: str) -> None:
        if cell_len(word) > self.room and self._column > cell_len(self.hang):
            self._break()
        while cell_len(word) > max(self.room, 1):  # longer than a row
            head = _first_cells(word, max(self.room, 1)) or word[0]
            self.verbatim(sgr(head, style), cell_len(head))
            self._break()
            word = word[len(head) :]
        self.verbatim(sgr(word, style), cell_len(word))

    def _break(self) -> None:
        self._final += f"\n{self.hang}"
        self._column, self._gap = cell_len(self.hang), 0


def _first_cells(text: str, n_cells: int) -> str:
    """Return as much of the beginning of `text` as takes no more than `n_cells`."""
    text = text[: max(n_cells, 0)]
    while cell_len(text) > n_cells:
        text = text[:-1]
    return text
