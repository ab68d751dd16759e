"""Finds the first fenced code block (CommonMark 0.31, 4.5) of a text that comes in pieces."""

import re

OPENING = re.compile(r"([ \t]*)(`{3,}|~{3,})([^`\n]*)\n")


class FirstCodeBlock:
    """Takes text and returns the lines inside the block, which also ends with the text.

    Models put blocks into lists. So a fence may have any indentation, and the lines of the block lose the same.
    """

    def __init__(self) -> None:
        self.found = False
        self.closed = False
        self._line = ""  # the last line, which has not ended yet
        self._indent, self._fence = "", ""

    def add(self, text: str) -> str:
        """Return the lines of the block that are complete now."""
        *lines, self._line = (self._line + text).split("\n")
        return "".join(self._take(line + "\n") for line in lines)

    def flush(self) -> str:
        """Return the last line of a block that was never closed."""
        line, self._line = self._line, ""
        return self._take(line + "\n") if line else ""

    def _take(self, line: str) -> str:
        if self.closed:
            return ""
        if not self.found:
            if opening := OPENING.fullmatch(line):
                self.found, (self._indent, self._fence) = True, opening.groups()[:2]
            return ""
        rest = line.strip()
        if len(rest) >= len(self._fence) and set(rest) == {self._fence[0]}:
            self.closed = True
            return ""
        return line.removeprefix(self._indent)
