"""What a terminal shows: as much of one as the sequences of the chat's Markdown need.

Any other control character or sequence fails. A row that has ended is never changed: no sequence leads back to it.
"""

import re
import unicodedata
from dataclasses import dataclass, field

SEQUENCE = re.compile(r"\x1b\[(\d*)([DKG])|\x1b\[([\d;]*)m|\x1b\]8;;([!-~]*)\x1b\\|(\r)|(\n)|([^\x00-\x1f\x7f-\x9f])")
STYLES = {"1": "bold", "2": "dim", "3": "italic", "4": "underline", "9": "strike"}


@dataclass
class Screen:
    """Called with what a program writes; `rows` are lists of (character, styles), one a cell ("" after a wide one).

    `joins` terminals show an emoji of several code points in two cells, others each of its code points.
    """

    joins: bool = True
    rows: list[list[tuple[str, frozenset[str]]]] = field(default_factory=lambda: [[]])
    written: str = ""
    n_writes: int = 0
    column: int = 0
    styles: tuple[str, ...] = ()
    url: str = ""

    def __call__(self, text):
        self.written += text
        self.n_writes += bool(text)
        place = 0
        while place < len(text):
            match = SEQUENCE.match(text, place)
            assert match, f"{text[place : place + 12]!r} is no sequence that is allowed"
            self._obey(match)
            place = match.end()

    def _obey(self, match):
        number, letter, style, url, back, end, char = match.groups()
        if char:
            self._put(char)
        elif end:
            self.rows.append([])
            self.column = 0
        elif back:
            self.column = 0
        elif style is not None:
            self.styles = tuple(style.split(";")) if style not in ("", "0") else ()
        elif url is not None:
            self.url = url
        elif letter == "D":
            assert int(number) <= self.column, "the cursor goes left of its row"
            self.column -= int(number)
        elif letter == "G":
            self.column = int(number) - 1
        else:
            del self.rows[-1][self.column :]

    def _put(self, char):
        n_cells = cells(char)
        row = self.rows[-1]
        if n_cells == 0 or (self.joins and self._continues(char)):
            place = max((n for n in range(self.column) if row[n][0]), default=None)
            if place is None:
                return
            row[place] = (row[place][0] + char, row[place][1])
            if char == "\ufe0f" and self.joins and place == self.column - 1:
                self._cell("")
            return
        self._cell(char)
        if n_cells == 2:
            self._cell("")

    def _continues(self, char):
        before = next((text for text, _ in reversed(self.rows[-1][: self.column]) if text), "")
        if before.endswith("\u200d") or "\U0001f3fb" <= char <= "\U0001f3ff":
            return bool(before)
        return len(before) == 1 and all("\U0001f1e6" <= c <= "\U0001f1ff" for c in before + char)

    def _cell(self, text):
        row = self.rows[-1]
        row.extend([(" ", frozenset())] * (self.column - len(row)))
        names = {STYLES.get(style, f"colour {style}") for style in self.styles} | ({self.url} if self.url else set())
        row[self.column : self.column + 1] = [(text, frozenset(names))]
        self.column += 1

    @property
    def lines(self):
        return ["".join(text for text, _ in row).rstrip() for row in self.rows]

    @property
    def text(self):
        return "\n".join(self.lines)


def cells(char):
    """Return how many cells a terminal gives a code point."""
    if unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" or "\U0001f1e6" <= char <= "\U0001f1ff" else 1
