"""Writes the current row of a terminal: wraps words, and rewrites a draft after them.

A finished row is never changed, so that scrolling back shows everything once.
"""

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from .cells import clusters, first_cells, is_certain, width
from .style import PLAIN, Style, styled

# A line may break at spaces, and before and after a character of a script that is written without spaces; not before
# a mark that closes something there.
_UNSPACED = "\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef"
_CLOSING = "、。〉》」』】〕〗〙〛！），．：；？］｝～"
_PIECES = re.compile(f" +|[{_UNSPACED}]|[^ {_UNSPACED}]+")
_IS_UNSPACED = re.compile(f"[{_UNSPACED}]")
MAX_APPENDED, MAX_WORD = 200, 2000  # characters; they bound the work for a text without blanks


class Start(NamedTuple):
    """What stands at the start of a row, with its own escape sequences."""

    text: str = ""
    n_cells: int = 0

    def __add__(self, other: object) -> "Start":
        assert isinstance(other, Start), other
        return Start(self.text + other.text, self.n_cells + other.n_cells)


NOTHING = Start()


class Row:
    """Collects text; `flush` writes it in one call, so that nobody sees a half-drawn row."""

    def __init__(self, write: Callable[[str], None], n_cells: Callable[[], int]) -> None:
        self._write, self._n_cells = write, n_cells
        self.is_open = False
        self._is_unused = False  # it has only the start that `restart` gave it, which is not written yet
        self.widest = 0  # cells of the widest row since `widest` was set
        self._hang = NOTHING
        self._column = 0  # number of final cells
        self._gap, self._gap_style = 0, PLAIN  # spaces before the next word, if it fits into this row
        self._word: list[tuple[str, Style]] = []  # the current word, which may go on in another style
        self._final = ""  # final, but not written yet
        self._before = ""  # final and written, in the row where the cursor is
        self._draft, self._draft_cells = "", 0  # written after the final text; it may change

    @property
    def width(self) -> int:
        return self._n_cells()

    def begin(self, start: Start, hang: Start) -> None:
        """Begin a row with `start`; the further rows of the same line begin with `hang`."""
        self.verbatim(*start)
        self._hang = hang

    def words(self, text: str, style: Style = PLAIN) -> None:
        """Append words; a word that does not fit into this row begins the next one."""
        for piece in _PIECES.findall(text):
            if piece[0] == " ":
                self._place()
                if self._column > self._hang.n_cells:
                    self._gap, self._gap_style = self._gap + len(piece), style
            else:
                if self._word and self._may_break(piece):
                    self._place()
                for place in range(0, len(piece), MAX_APPENDED):
                    self._append(piece[place : place + MAX_APPENDED], style)

    def verbatim(self, text: str, n_cells: int) -> None:
        """Append `text` of `n_cells` with its own escape sequences; only the terminal wraps it."""
        self._place()
        self.is_open, self._is_unused = True, self._is_unused and not n_cells
        self._final += " " * self._gap + text
        self._column += self._gap + n_cells
        self._gap = 0

    def end(self) -> None:
        """End the row, without the spaces at its end; do nothing if it was not begun."""
        if self.is_open:
            self._place()
            if self._is_unused:
                self._final, self._column, self._gap = "", 0, 0
            else:
                self._next("")
            self.is_open, self._is_unused, self._hang = False, False, NOTHING

    def restart(self, write: Callable[[str], None]) -> None:
        """Go on in a new row that begins as a further row of the same line, and write to `write` from now on."""
        self._write, self._final, self._before, self._draft, self._word = write, "", "", "", []
        self._column = self._gap = 0
        if self.is_open:
            self.verbatim(*self._hang)
            self._is_unused = True

    def flush(self, draft: str) -> None:
        """Write the final text, and after it as much of the current word and of `draft` as fits into the row."""
        shown, n_cells = self._preview(draft)
        text = self._final + shown
        self._is_unused = self._is_unused and not text
        if text.startswith(self._draft):  # a draft of plain words is already correct on the screen
            text = text[len(self._draft) :]
        elif is_certain(self._before + self._draft):
            text = f"\x1b[{self._draft_cells}D\x1b[K{text}"
        else:  # it is not known how many cells this terminal has given it
            text = f"\r\x1b[K{self._before}{text}"
        if text:
            self._write(text)
        self._before = (self._before + self._final).rpartition("\n")[2]
        self._final, self._draft, self._draft_cells = "", shown, n_cells

    def _may_break(self, piece: str) -> bool:
        """Return whether a row may end between the current word and `piece`, which follows without a space."""
        is_unspaced = _IS_UNSPACED.match(piece) or _IS_UNSPACED.match(self._word[-1][0][-1])
        return bool(is_unspaced) and piece not in _CLOSING

    def _append(self, piece: str, style: Style) -> None:
        self.is_open = True
        if self._word and self._word[-1][1] == style:
            self._word[-1] = (self._word[-1][0] + piece, style)
        else:
            self._word.append((piece, style))
        if sum(len(text) for text, _ in self._word) > MAX_WORD:  # it may be of marks, which take no cells
            self._put(self._word)
            self._word = []
        elif self._word_cells() > self.width - self._hang.n_cells:
            self._fill()

    def _word_cells(self) -> int:
        return sum(width(text) for text, _ in self._word)

    def _place(self) -> None:
        """Make the current word final."""
        if not self._word:
            return
        n_cells = self._word_cells()
        if n_cells > self.width - self._column - self._gap and self._column > self._hang.n_cells:
            self._next(self._hang.text)
        if n_cells > self.width - self._column - self._gap:
            self._fill()
        self._put(self._word)
        self._word = []

    def _fill(self) -> None:
        """Fill rows with a word that is longer than one; what is left, which fits into a row, stays the word."""
        if self._column > self._hang.n_cells:
            self._next(self._hang.text)
        while (rest := self._word) and self._word_cells() > self.width - self._column:
            head = list[tuple[str, Style]]()
            room = max(self.width - self._column, 1)
            while rest:
                text, style = rest[0]
                part = first_cells(text, room) or ("" if head else next(clusters(text)))
                head.append((part, style))
                room -= width(part)
                rest = [(text[len(part) :], style), *rest[1:]] if part != text else rest[1:]
                if part != text:
                    break
            self._word = rest
            self._put(head)
            if rest:
                self._next(self._hang.text)

    def _put(self, pieces: Iterable[tuple[str, Style]]) -> None:
        self._final += styled(" " * self._gap, self._gap_style)
        self._column += self._gap
        self._gap = 0
        for text, style in pieces:
            self._is_unused = False
            self._final += styled(text, style)
            self._column += width(text)

    def _next(self, start: str) -> None:
        self.widest = max(self.widest, self._column)
        self._final += f"\n{start}"
        self._column, self._gap = self._hang.n_cells if start else 0, 0

    def _preview(self, draft: str) -> tuple[str, int]:
        """Return what is shown after the final text, and its cells."""
        if not (self._word or draft):
            return "", 0
        shown, room = "", self.width - self._column
        for text, style in ((" " * self._gap, self._gap_style), *self._word, (draft, PLAIN)):
            part = first_cells(text, room)
            shown += styled(part, style)
            room -= width(part)
            if part != text:
                break
        return shown, self.width - self._column - room
