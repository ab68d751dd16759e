"""Colours code line by line, in the sixteen colours of the terminal."""

import io
import os

from rich.console import Console
from rich.style import Style
from rich.syntax import ANSI_DARK, ANSI_LIGHT, ANSISyntaxTheme, Syntax

# Those of the sixteen colours that have a contrast of 3.5 or more to black and to white, with the palette of xterm.
ANY_BACKGROUND: dict[tuple[str, ...], Style] = {  # by the kinds of pygments
    ("Comment",): Style(color="bright_black", italic=True),
    ("Keyword",): Style(color="bright_blue"),
    ("Operator", "Word"): Style(color="bright_blue"),
    ("Name", "Builtin"): Style(color="bright_blue"),
    ("Name", "Tag"): Style(color="bright_blue"),
    ("Name", "Attribute"): Style(color="red"),
    ("Name", "Class"): Style(bold=True),
    ("Name", "Decorator"): Style(bold=True),
    ("Name", "Function"): Style(bold=True),
    ("Literal", "String"): Style(color="magenta"),
    ("Literal", "Number"): Style(color="red"),
    ("Generic", "Deleted"): Style(color="red"),
    ("Generic", "Inserted"): Style(color="bright_blue"),
    ("Generic", "Heading"): Style(bold=True),
    ("Generic", "Error"): Style(color="red"),
}
MAX_CHARACTERS = 4000  # of previous lines, which are coloured again, so that a string of many lines is recognized


class Highlighter:
    """Colours the lines of a code block in `language`, one after the other."""

    def __init__(self, language: str) -> None:
        self._lines: list[str] = []
        self._n_characters = 0
        self._syntax = Syntax("", language or "text", theme=ANSISyntaxTheme(_colors()), background_color="default")
        # With NO_COLOR the console has no colour system, and writes plain text.
        self._console = Console(
            file=io.StringIO(), force_terminal=True, width=10_000, color_system=None if no_color() else "standard"
        )

    def line(self, line: str) -> str:
        """Return `line` with its colours; nothing else changes. `line` must be inert."""
        self._lines.append(line)
        self._n_characters += len(line) + 1
        while self._n_characters > MAX_CHARACTERS + len(line) + 1:
            self._n_characters -= len(self._lines.pop(0)) + 1
        text = self._syntax.highlight("\n".join(self._lines))
        text.rstrip()
        last = text.split("\n")[-1] if line.strip() else None
        if last is None or last.plain != line.rstrip():  # the lexer has changed the text
            return line
        with self._console.capture() as captured:
            self._console.print(last, end="", soft_wrap=True)
        return captured.get()


def no_color() -> bool:
    """Return whether the user wants no colours (no-color.org)."""
    return bool(os.environ.get("NO_COLOR"))


def _colors() -> dict[tuple[str, ...], Style]:
    """Return the colours of code: for the background that the terminal reports, or else for both."""
    background = os.environ.get("COLORFGBG", "").rpartition(";")[2]  # most report none
    return {"0": ANSI_DARK, "7": ANSI_LIGHT, "8": ANSI_DARK, "15": ANSI_LIGHT}.get(background, ANY_BACKGROUND)
