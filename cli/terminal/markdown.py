"""Writes Markdown on a terminal while it arrives: styled, wrapped, append-only.

A span gets its style when its closing mark arrives. Until then it is shown with its marks, and only on the current row.
A span that never closes keeps its marks. Other markup (links, tables, formulas) is shown as it is.
"""

import re
from collections.abc import Callable, Iterator

from rich.cells import cell_len

from .highlight import Highlighter, no_color
from .row import LAST_WORD, Row
from .sanitize import inert
from .style import sgr

BOLD, DIM, ITALIC, STRIKE, BOLD_ITALIC = "1", "2", "3", "9", "1;3"
MAX_HELD = 300  # the longest span, in characters

_HEADING = re.compile(r" {0,3}(#{1,6}) +")
_BULLET = re.compile(r"( *)[-*+] +")
_NUMBER = re.compile(r" *\d{1,9}[.)] +")
_QUOTE = re.compile(r" {0,3}(?:> ?)+")
_RULE = re.compile(r" {0,3}([-*_])(?: *\1){2,} *")
_FENCE = re.compile(r" {0,12}(`{3,}|~{3,}) *([^\s`]*)[^`]*")
_TABLE = re.compile(r" *\|.*")
# The beginning of a line that may still become one of the above.
_UNDECIDED = re.compile(r" *(?:#{1,6} *|[-*+]|[-*_][-*_ ]*|\d{1,9}[.)]?|[> ]*|`{1,2}|~{1,2}|`{3}[^\n]*|~{3}.*|\|.*)")

_MARK = re.compile(r"`+|\*+|__?|~~")
_SPANS = [
    (re.compile(r"(`+)(?!`)(.+?)(?<!`)\1(?!`)"), "36"),
    (re.compile(r"(?<![A-Za-z0-9_*])(\*\*\*)(?=\S)(.+?)(?<=\S)\1(?![A-Za-z0-9*])"), BOLD_ITALIC),
    (re.compile(r"(?<![A-Za-z0-9_*])(\*\*)(?=[^\s*])(.+?)(?<=\S)\1(?![A-Za-z0-9*])"), BOLD),
    (re.compile(r"(?<![A-Za-z0-9_*])(\*|_)(?=[^\s*_])(.+?)(?<=[^\s*_])\1(?![A-Za-z0-9*_])"), ITALIC),
    (re.compile(r"(~~)(?=\S)(.+?)(?<=\S)\1"), STRIKE),
]


class MarkdownStream:
    """Writes a text that comes in pieces; calls `columns` for every row, as windows change."""

    def __init__(self, write: Callable[[str], None], columns: Callable[[], int]) -> None:
        self._row = Row(write, columns)
        self._line = ""  # the part of the current line that is not final
        self._before = ""  # the character before it
        self._style = ""  # of the current line
        self._at_start = True
        self._fence = ""  # opening fence of the current code block
        self._code: Highlighter | None = None

    def write(self, text: str) -> None:
        *whole, last = (self._line + inert(text)).expandtabs(4).split("\n")
        for self._line in whole:
            self._advance(ended=True)
            self._end_line()
        self._line = last
        self._advance(ended=False)
        self._row.flush(draft=self._line)

    def finish(self) -> None:
        """Write the text that is still held back, and end the row."""
        if self._line or not self._at_start:
            self.write("\n")

    def _advance(self, *, ended: bool) -> None:
        """Make the part of the line final whose style is known."""
        if self._code:
            if ended:
                self._code_line(self._code)
            return
        if self._at_start and not self._begin_line(ended=ended):
            return
        segments, held = _segments(self._before, self._line, ended=ended, max_word=self._row.width)
        for text, style in segments:
            self._row.words(text, ";".join(filter(None, (self._style, style))))
        done = self._line[: len(self._line) - len(held)]
        self._before, self._line = (done or self._before)[-1:], held

    def _begin_line(self, *, ended: bool) -> bool:
        """Begin a line once its kind is known; return whether prose follows."""
        line = self._line
        if not ended and _UNDECIDED.fullmatch(line):
            return False
        self._at_start = False
        if ended and (fence := _FENCE.fullmatch(line)):
            self._fence, self._code = fence[1], Highlighter(fence[2])
            return self._whole(sgr(line, DIM))
        if ended and _RULE.fullmatch(line):
            return self._whole(sgr("─" * min(self._row.width, 40), DIM))
        if ended and _TABLE.fullmatch(line):
            return self._whole(line)
        if match := _HEADING.match(line):
            self._style = BOLD if no_color() or len(match[1]) > 2 else f"{BOLD};36"
            self._begin("", "", match.end())
        elif match := _BULLET.match(line):
            self._begin(f"{match[1]}• ", " " * len(f"{match[1]}• "), match.end())
        elif match := _NUMBER.match(line):
            self._begin(match[0], " " * match.end(), match.end())
        elif match := _QUOTE.match(line):
            bars = "│ " * match[0].count(">")
            self._begin(sgr(bars, DIM), sgr(bars, DIM), match.end(), len(bars))
        else:
            indent = " " * (len(line) - len(line.lstrip(" ")))
            self._begin(indent, indent, len(indent))
        return True

    def _begin(self, start: str, hang: str, n_read: int, n_cells: int | None = None) -> None:
        self._row.verbatim(start, len(start) if n_cells is None else n_cells)
        self._row.hang = hang
        self._before, self._line = "", self._line[n_read:]

    def _whole(self, text: str) -> bool:
        self._row.verbatim(text, cell_len(self._line))
        self._line = ""
        return False

    def _code_line(self, code: Highlighter) -> None:
        stripped = self._line.strip()
        if len(stripped) >= len(self._fence) and set(stripped) == {self._fence[0]}:
            self._code = None
            self._whole(sgr(self._line, DIM))
        else:
            self._whole(code.line(self._line))

    def _end_line(self) -> None:
        self._row.end()
        self._row.hang = self._style = self._before = ""
        self._at_start = True


def _segments(before: str, line: str, *, ended: bool, max_word: int) -> tuple[list[tuple[str, str]], str]:
    """Return [(text, style)] of `line`, and the rest to hold back; `before` precedes `line`."""
    segments = list[tuple[str, str]]()
    text, plain, place = before + line, "", len(before)
    while mark := _MARK.search(text, place):
        plain += text[place : mark.start()]
        place = mark.start()
        span, style = _span(text, place)
        if span and (ended or span.end() < len(text)):  # at the end of the text, another mark may follow
            segments += [(plain, ""), *_inside(span, style)]
            plain, place = "", span.end()
        elif not ended and _may_open(text, mark) and len(text) - place < MAX_HELD:
            break
        else:
            plain += mark[0]
            place = mark.end()
    else:
        plain += text[place:]
        place = len(text)
    held = text[place:]
    if not ended and (word := LAST_WORD.search(plain)) and len(word[0]) + len(held) < max_word:
        plain, held = plain[: word.start()], word[0] + held
    return [*segments, (plain, "")], held


def _span(text: str, place: int) -> tuple[re.Match[str] | None, str]:
    """Return the complete span that begins at `place`, and its style."""
    found = ((pattern.match(text, place), style) for pattern, style in _SPANS)
    return next((pair for pair in found if pair[0]), (None, ""))


def _inside(span: re.Match[str], style: str) -> Iterator[tuple[str, str]]:
    """Yield the texts and styles inside a span; without colours, code keeps its marks."""
    if span[1][0] == "`":
        yield (span[0], "") if no_color() else (span[2], style)
        return
    for text, inner in _segments("", span[2], ended=True, max_word=0)[0]:
        yield text, ";".join(filter(None, (style, inner)))


def _may_open(text: str, mark: re.Match[str]) -> bool:
    """Return whether a span may begin with `mark`, judged by the text so far."""
    if mark[0][0] in "*_" and re.match(r"[A-Za-z0-9_*]", text[mark.start() - 1 : mark.start()] if mark.start() else ""):
        return False
    return mark.end() == len(text) or not text[mark.end()].isspace()
