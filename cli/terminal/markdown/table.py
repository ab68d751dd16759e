"""Draws a table when it has ended. Cells wrap at words; where the columns do not fit at all, each row is a list."""

import re
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import NamedTuple

from mistral_mlx.cli.terminal.cells import is_certain, width
from mistral_mlx.cli.terminal.row import NOTHING, Row, Start
from mistral_mlx.cli.terminal.style import BOLD, DIM, Style, sgr

from .inline import Segment, segments

LONG_WORD = 12  # cells; only longer words are cut, and where the columns do not fit, the table is written as lists
MAX_CHARACTERS = 40_000  # a longer table ends there

_DELIMITER = re.compile(r" *\|?(?: *:?-+:? *\|)* *:?-+:? *\|? *")
_PIPE = re.compile(r"(?<!\\)\|")
_SEQUENCE = re.compile(r"\x1b\[[\d;]*m|\x1b\]8;;[^\x1b]*\x1b\\")
_BREAK = re.compile(r"<br */?>", re.IGNORECASE)
_GAP = " │ "


class Table:
    """The lines of what may become a table: a header, which a delimiter row must follow.

    Its first row on the terminal begins with `start`, the others with `hang`.
    """

    def __init__(self, header: str, start: Start, hang: Start) -> None:
        self.lines = [header]
        self.start, self.hang = start, hang
        self._n_characters = 0

    @property
    def is_certain(self) -> bool:
        return len(self.lines) > 1

    def take(self, line: str) -> bool:
        """Take the next line, unless it does not belong to the table."""
        if self.is_certain:
            belongs = line.startswith("|") and self._n_characters < MAX_CHARACTERS
        else:
            is_delimiter = "|" in line and _DELIMITER.fullmatch(line)
            belongs = bool(is_delimiter) and len(cells(line)) == len(cells(self.lines[0]))
        if belongs:
            self.lines.append(line)
            self._n_characters += len(line)
        return belongs

    def drop_rows(self) -> None:
        """Forget the rows, which have been drawn; those that follow get the header again."""
        del self.lines[2:]

    def write(self, row: Row) -> None:
        """Write the table into `row` and the rows after it."""
        start = self.start
        for text in self._drawn(row.width - self.hang.n_cells, self.hang.n_cells):
            row.begin(start, self.hang)
            row.verbatim(*text)
            row.end()
            start = self.hang

    def _drawn(self, n_cells: int, column: int) -> list[Start]:
        """Return the rows of the table, at most `n_cells` wide, which begin in `column` of the terminal."""
        header, delimiter, *rows = map(cells, self.lines)
        n = len(header)
        body = [[_cell(text) for text in _fitted(row, n)] for row in rows]
        titles = [_cell(text, BOLD) for text in header]
        widths = _widths([titles, *body], n_cells - len(_GAP) * (n - 1))
        if not widths:
            return list(_as_lists(titles, body, n_cells))
        columns = list[_Column]()
        for w, text in zip(widths, delimiter, strict=True):
            columns.append(_Column(column, w, text[0] == ":", text[-1] == ":"))
            column += w + len(_GAP)
        rule = Start(sgr("─┼─".join("─" * w for w in widths), DIM), sum(widths) + len(_GAP) * (n - 1))
        drawn = [_row(row, columns) for row in body]
        is_wrapped = any(len(lines) > 1 for lines in drawn)
        found = [*_row(titles, columns), rule]
        for place, lines in enumerate(drawn):
            found += ([rule] if is_wrapped and place else []) + lines
        return found


def cells(line: str) -> list[str]:
    """Return the texts of a row; `\\|` is a bar in a text."""
    texts = _PIPE.split(line.strip(" "))
    texts = texts[bool(len(texts) > 1 and not texts[0]) : len(texts) - bool(len(texts) > 1 and not texts[-1].strip())]
    return [text.strip(" ").replace(r"\|", "|") for text in texts]


def _fitted(row: list[str], n: int) -> list[str]:
    """Return a row of `n` cells; what is too many stays visible in the last one, where GFM would drop it."""
    return [*row[: n - 1], " | ".join(row[n - 1 :])] if len(row) >= n else [*row, *[""] * (n - len(row))]


Cell = list[list[Segment]]  # a list of segments for each line of it


def _cell(text: str, base: str = "") -> Cell:
    return [segments(line.strip(" "), base) for line in _BREAK.split(text)]


def _wrapped(cell: Cell, n_cells: int) -> list[Start]:
    """Return the rows of a cell that is `n_cells` wide."""
    written = list[str]()
    row = Row(written.append, lambda: n_cells)
    for line in cell:
        row.begin(NOTHING, NOTHING)
        for text, style in line:
            row.words(text, style)
        row.end()
    row.flush("")
    return [Start(text, width(_SEQUENCE.sub("", text))) for text in "".join(written).removesuffix("\n").split("\n")]


def _widths(rows: Sequence[Sequence[Cell]], n_cells: int) -> list[int]:
    """Return the widths of the columns, the widest narrowed until they fit; nothing if their words would be cut."""
    columns = list(zip(*rows, strict=True))
    wanted = [max(1, *(width(text) for cell in column for text in _texts(cell))) for column in columns]
    words = [
        max((width(word) for cell in column for text in _texts(cell) for word in text.split()), default=1)
        for column in columns
    ]
    least = [min(word, LONG_WORD) for word in words]
    if sum(least) > n_cells:
        return []
    limit = max(wanted)
    while sum(widths := [min(w, max(limit, word)) for w, word in zip(wanted, least, strict=True)]) > n_cells:
        limit -= 1
    for place, w in enumerate(wanted):  # what is left over
        if w > widths[place] and sum(widths) < n_cells:
            widths[place] += 1
    return widths


def _texts(cell: Cell) -> Iterator[str]:
    return ("".join(text for text, _ in line) for line in cell)


class _Column(NamedTuple):
    place: int  # of its first cell on the terminal
    n_cells: int
    is_left: bool
    is_right: bool

    def aligned(self, text: Start) -> Start:
        """Return `text` between spaces. After emoji the cursor is set: terminals differ in how far they move it."""
        n_spaces = self.n_cells - text.n_cells
        n_before = n_spaces * self.is_right // (1 + self.is_left)
        end = " " * (n_spaces - n_before)
        if not is_certain(text.text):
            end = f"\x1b[{self.place + self.n_cells + 1}G"
        return Start(" " * n_before + text.text + end, self.n_cells)


def _row(row: Sequence[Cell], columns: Sequence[_Column]) -> list[Start]:
    """Return the rows on the terminal of one row of the table."""
    texts = [_wrapped(cell, column.n_cells) for cell, column in zip(row, columns, strict=True)]
    gap, found = Start(sgr(_GAP, DIM), len(_GAP)), []
    for lines in zip_longest(*texts, fillvalue=NOTHING):
        start = NOTHING
        for n, (text, column) in enumerate(zip(lines, columns, strict=True)):
            start += (gap if n else NOTHING) + column.aligned(text)
        found.append(start)
    return found


def _as_lists(titles: Sequence[Cell], body: Sequence[Sequence[Cell]], n_cells: int) -> Iterator[Start]:
    """Yield each row as lines `title: text`."""
    for n, row in enumerate(body):
        if n:
            yield Start(sgr("─" * min(n_cells, 8), DIM), min(n_cells, 8))
        for title, cell in zip(titles, row, strict=True):
            first, *others = cell
            yield from _wrapped([[*title[0], (": ", Style(BOLD)), *first], *others], n_cells)
