"""Puts Markdown on the terminal while it comes.

A span gets its style when its closing mark arrives. Until then it is shown with its marks, and only on the current row.
A span that never closes keeps its marks. A table is drawn when it has ended. Line breaks in a paragraph are kept, since
a chat means them. Raw HTML, formulas, and links that name their address elsewhere are shown as they are.
"""

import re
from collections.abc import Callable, Iterable

from mistral_mlx.cli.terminal.cells import width
from mistral_mlx.cli.terminal.highlight import no_color
from mistral_mlx.cli.terminal.row import NOTHING, Row, Start
from mistral_mlx.cli.terminal.sanitize import inert
from mistral_mlx.cli.terminal.style import BOLD, CODE, DIM, sgr

from .blocks import MAX_START, Container, Kind, Leaf, Line, read
from .code import Fence, code_row
from .inline import Inline, Segment
from .starts import row_start
from .table import Table

MIN_WIDTH, RULE_WIDTH, TAB = 8, 40, 4

_CLOSED = re.compile(r"(?:^| +)#+ *$| +$")
_MAYBE_CLOSED = re.compile(r"(?:^| )[ #]*$")


class MarkdownStream:
    """Writes a text that comes in pieces; calls `columns` for every row, as windows change."""

    def __init__(self, write: Callable[[str], None], columns: Callable[[], int]) -> None:
        # The last column stays empty, because the cursor has no position after it.
        self._row = Row(write, lambda: max(columns() - 1, MIN_WIDTH))
        self._line = ""  # of the current line, what has not been handed on
        self._n_columns = 0  # of the current line, for tabs
        self._kind: Kind | None = None  # of the current line, once it is known
        self._containers = list[Container]()
        self._leaf = Leaf.NONE
        self._hang = NOTHING  # of the paragraph
        self._inline: Inline | None = None  # the paragraph or heading
        self._fence: Fence | None = None  # the current code block
        self._table: Table | None = None
        self._n_seen = 0  # characters of the current line that an earlier stream has shown

    @classmethod
    def resume(cls, text: str, write: Callable[[str], None], columns: Callable[[], int]) -> "MarkdownStream":
        """Return a stream that goes on after `text`, which another one has written, in a new row."""
        stream = cls(lambda _: None, columns)
        stream.write(text)
        stream._n_seen = len(stream._line)
        if stream._inline:
            stream._inline.see()
        if stream._table:
            stream._table.drop_rows()
        stream._row.restart(write)
        return stream

    def write(self, text: str) -> None:
        for n, part in enumerate(inert(text).split("\n")):
            if n:
                self._end_line()
            self._take(part)
        self._advance(ended=False)
        self._row.flush(self._draft())

    def finish(self) -> None:
        """Write the text that is still held back, and end the row."""
        if self._line or self._kind:
            self._end_line()
        self._end_leaf()
        self._row.end()
        self._row.flush("")

    def _take(self, part: str) -> None:
        """Append to the current line, with spaces for tabs."""
        if "\t" in part:
            before = self._n_columns % TAB
            part = (" " * before + part).expandtabs(TAB)[before:]
        self._n_columns += len(part)
        self._line += part

    def _draft(self) -> str:
        if self._inline and self._inline.held:
            if not self._row.is_open:
                self._row.begin(self._hang, self._hang)
            return self._inline.held.partition("\n")[0]
        return self._line or (self._table.lines[-1] if self._table else "")

    def _advance(self, *, ended: bool) -> None:
        """Hand on as much of the current line as is certain."""
        if self._kind is None:
            line = read(self._line, self._containers, self._leaf, ended=ended)
            if line and self._table:
                if self._goes_on_in_table(self._table, line, ended=ended):
                    return
                line = read(self._line, self._containers, self._leaf, ended=ended)
            if line:
                self._begin(line, ended=ended)
        if self._inline and self._kind is Kind.HEADING:
            closing = (_CLOSED if ended else _MAYBE_CLOSED).search(self._line)
            if closing and (not ended or closing[0][0] == " " or self._inline.is_new):
                self._hand_on(self._inline, closing.start())
            else:
                self._hand_on(self._inline, len(self._line))
        elif self._inline and self._kind in (Kind.TEXT, Kind.MORE):
            self._hand_on(self._inline, len(self._line))

    def _hand_on(self, inline: Inline, n: int) -> None:
        """Have `inline` read the next `n` characters of the line."""
        text, self._line = self._line[:n], self._line[n:]
        if self._n_seen:
            inline.see(min(n, self._n_seen))
            self._n_seen = max(0, self._n_seen - n)
        self._put(inline.feed(text))

    def _put(self, found: Iterable[Segment]) -> None:
        """Write texts of a paragraph; each of its lines begins as its first one does, and keeps its indent."""
        for text, style in found:
            for n, part in enumerate(text.split("\n")):
                if n:
                    if not self._row.is_open:  # a line that shows nothing
                        self._row.begin(self._hang, self._hang)
                    self._row.end()
                was_open = self._row.is_open
                if part and not was_open:
                    n_spaces = 0 if style.sgr else len(part) - len(part.lstrip(" "))
                    n_spaces = min(n_spaces, max(0, self._row.width // 2 - self._hang.n_cells))
                    indent = Start(" " * n_spaces, n_spaces)
                    self._row.begin(self._hang + indent, self._hang + indent)
                self._row.words(part.lstrip(" ") if not was_open else part, style)

    def _end_line(self) -> None:
        self._advance(ended=True)
        if self._inline and self._kind in (Kind.TEXT, Kind.MORE):
            self._put(self._inline.feed("\n"))
        elif self._inline and self._kind is Kind.HEADING:
            self._end_paragraph(self._inline)
        elif self._kind is Kind.CODE:
            self._end_code()
        self._line, self._kind, self._n_columns, self._n_seen = "", None, 0, 0

    def _begin(self, line: Line, *, ended: bool) -> None:
        """Begin a line whose kind is known."""
        text, is_inside = self._line[line.place :], line.n_matched == len(self._containers)
        self._n_seen = max(0, self._n_seen - line.place)
        self._line, self._kind = text, line.kind
        may_be_row = line.kind is Kind.TEXT or (line.kind is Kind.MORE and is_inside and line.indent < TAB)
        if ended and may_be_row and text[:1] == "|" and len(text) < MAX_START:
            self._hold_row(line, text)
        elif line.kind is Kind.MORE:
            n_spaces = line.indent if is_inside else 0
            self._line = " " * n_spaces + text
            self._n_seen += n_spaces if self._n_seen else 0
        elif line.kind is Kind.CODE and self._fence and is_inside:
            start = self._start(len(self._containers))
            self._begin_code(start, start, self._fence.n_before(text))
        else:
            start, hang = self._open(line)
            self._begin_block(line, start, hang)

    def _open(self, line: Line) -> tuple[Start, Start]:
        """Begin the quotes and items of a line; return how its first row and the others begin."""
        is_inside = line.n_matched == len(self._containers)
        self._end_leaf()
        if self._row.is_open and (not is_inside or line.kind is Kind.BLANK):  # an item without a text
            self._row.end()
            if is_inside:
                self._containers.pop()
        self._containers[line.n_matched :] = line.opened
        skipped = line.n_matched if self._row.is_open else 0
        return self._start(line.n_matched, skipped), self._start(len(self._containers))

    def _start(self, n_old: int, skipped: int = 0) -> Start:
        return row_start(self._containers[skipped:], n_old - skipped, self._row.width)

    def _begin_block(self, line: Line, start: Start, hang: Start) -> None:
        text = self._line
        if line.kind is Kind.TEXT:
            spaces = Start(" " * line.indent, line.indent)
            self._begin_paragraph(start + spaces, hang + spaces)
        elif line.kind is Kind.HEADING:
            self._inline, self._hang = Inline(BOLD if no_color() or len(line.mark) > 2 else f"{BOLD};{CODE}"), hang
            self._row.begin(start, hang)
        elif line.kind is Kind.CODE:
            self._begin_code(start, hang, 0)
        elif line.kind is Kind.FENCE:
            self._leaf, self._fence = Leaf.FENCE, Fence(text, line.mark, line.indent)
            self._whole_row(start, Start(sgr(text, DIM), width(text)))
        elif line.kind is Kind.RULE:
            n = min(self._row.width - start.n_cells, RULE_WIDTH)
            self._whole_row(start, Start(sgr("─" * n, DIM), n))
        elif line.kind is Kind.UNDERLINE:
            n = max(self._row.widest - hang.n_cells, 1)
            self._whole_row(start, Start(sgr(("═" if line.mark == "=" else "─") * n, DIM), n))
        elif line.opened:  # an item whose text may follow
            self._row.begin(start, hang)
        else:
            self._whole_row(hang if any(c.is_quote for c in self._containers) else NOTHING, NOTHING)

    def _begin_paragraph(self, start: Start, hang: Start) -> Inline:
        self._inline, self._leaf = Inline(), Leaf.PARAGRAPH
        self._hang, self._row.widest = hang, 0
        self._row.begin(start, hang)
        return self._inline

    def _end_paragraph(self, inline: Inline) -> None:
        self._put(inline.end())
        self._inline, self._leaf = None, Leaf.NONE
        self._row.end()

    def _end_leaf(self) -> None:
        """End the table, paragraph or code block before a line."""
        if self._table:
            self._end_table(self._table)
        if self._inline:
            self._end_paragraph(self._inline)
        self._leaf, self._fence = Leaf.NONE, None

    def _whole_row(self, start: Start, text: Start) -> None:
        self._row.begin(start, NOTHING)
        self._row.verbatim(*text)
        self._row.end()
        self._line = ""

    def _begin_code(self, start: Start, hang: Start, n_spaces: int) -> None:
        self._row.begin(start, hang)
        self._line = self._line[n_spaces:]
        self._n_seen = max(0, self._n_seen - n_spaces)

    def _end_code(self) -> None:
        self._row.verbatim(*code_row(self._line, self._fence, self._n_seen))
        self._row.end()
        if self._fence and self._fence.is_closed_by(self._line):
            self._fence, self._leaf = None, Leaf.NONE

    def _hold_row(self, line: Line, text: str) -> None:
        """Hold back what may be the header of a table."""
        start = hang = self._start(len(self._containers))
        if line.kind is not Kind.MORE:
            start, hang = self._open(line)
        self._table, self._leaf, self._line, self._kind = Table(text, start, hang), Leaf.TABLE, "", None

    def _goes_on_in_table(self, table: Table, line: Line, *, ended: bool) -> bool:
        """Return whether the line belongs to the table; if not, the table has ended."""
        is_inside = line.n_matched == len(self._containers) and not line.opened and line.kind is Kind.TEXT
        if ended and is_inside and table.take(self._line[line.place :]):
            self._line = ""
            return True
        self._end_table(table)
        return False

    def _end_table(self, table: Table) -> None:
        """Draw a table, or write the row that was none."""
        self._table, self._leaf = None, Leaf.PARAGRAPH if self._inline else Leaf.NONE
        if table.is_certain:
            if self._inline:
                self._end_paragraph(self._inline)
            table.write(self._row)
            return
        inline = self._inline or self._begin_paragraph(table.start, table.hang)
        self._put(inline.feed(table.lines[0] + "\n"))
