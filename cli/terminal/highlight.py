"""The colours of code, line by line, in the terminal's own sixteen; knows nothing of Markdown."""

import io
import os

from rich.console import Console
from rich.syntax import ANSI_DARK, ANSI_LIGHT, ANSISyntaxTheme, Syntax

MAX_LINES = 200  # looked back on, so that a string of many lines is seen as one


class Highlighter:
    """Takes the lines of a block in `language`, one after the other."""

    def __init__(self, language: str) -> None:
        self._lines: list[str] = []
        theme = ANSISyntaxTheme(ANSI_LIGHT if _background_is_light() else ANSI_DARK)
        self._syntax = Syntax("", language or "text", theme=theme, background_color="default")
        # Without a colour system NO_COLOR or a poor terminal gets plain text.
        self._console = Console(
            file=io.StringIO(), force_terminal=True, width=10_000, color_system=None if no_color() else "standard"
        )

    def line(self, line: str) -> str:
        """Return `line` with its colours. `line` is inert already, and comes back as it is but for them."""
        self._lines = [*self._lines[-MAX_LINES:], line]
        text = self._syntax.highlight("\n".join(self._lines))
        text.rstrip()
        last = text.split("\n")[-1] if line.strip() else None
        if last is None or last.plain != line.rstrip():  # a lexer of its own mind
            return line
        with self._console.capture() as captured:
            self._console.print(last, end="", soft_wrap=True)
        return captured.get()


def no_color() -> bool:
    """Whether the user asked for no colour (no-color.org)."""
    return bool(os.environ.get("NO_COLOR"))


def _background_is_light() -> bool:
    """Whether the terminal says so, as rxvt, Konsole and others do; most are dark or say nothing."""
    return os.environ.get("COLORFGBG", "").rpartition(";")[2] in ("7", "15")
