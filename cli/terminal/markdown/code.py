"""Shows a block of code, in a fence or indented, line by line."""

import re

from mistral_mlx.cli.terminal.cells import width
from mistral_mlx.cli.terminal.highlight import Highlighter, no_color
from mistral_mlx.cli.terminal.row import Start
from mistral_mlx.cli.terminal.style import CODE, DIM, sgr

_CELL = re.compile(r"(\x1b\[[\d;]*m)|[^\x1b]")


class Fence:
    """The code after an opening fence `line`, whose mark, such as three backticks, has `indent` spaces before it."""

    def __init__(self, line: str, mark: str, indent: int) -> None:
        language = line[len(mark) :].split()
        self._mark, self._indent = mark, indent
        self._highlighter = Highlighter(language[0] if language else "")

    def n_before(self, line: str) -> int:
        """Return how many spaces of `line` are the indent of the fence."""
        return min(self._indent, _n_spaces(line))

    def is_closed_by(self, line: str) -> bool:
        """Return whether `line`, without those spaces, is the closing fence."""
        mark = line.strip(" ")
        return len(mark) >= len(self._mark) and set(mark) == {self._mark[0]} and _n_spaces(line) < 4

    def shown(self, line: str) -> str:
        """Return `line` in its colours."""
        return sgr(line, DIM) if self.is_closed_by(line) else self._highlighter.line(line)


def code_row(line: str, fence: Fence | None, n_seen: int) -> Start:
    """Return a line of code from its character `n_seen` on; that of no fence has one colour."""
    if fence:
        shown = fence.shown(line)
    else:
        shown = line if no_color() else sgr(line, CODE)
    return Start(_after(shown, n_seen), width(line[n_seen:]))


def _n_spaces(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _after(shown: str, n: int) -> str:
    """Return `shown` without its first `n` characters, but with their escape sequences."""
    if n == 0:
        return shown
    kept = list[str]()
    for part in _CELL.finditer(shown):
        if part[1] or n <= 0:
            kept.append(part[0])
        n -= not part[1]
    return "".join(kept)
