"""Reads a regular expression letter by letter: where it is, what is wrong, and what an escape stands for."""

import re
import sys
from dataclasses import dataclass, field

_LETTERS = {"a": "\a", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_HEX = {"x": 2, "u": 4, "U": 8}


class PatternFault(ValueError):
    """What is wrong with a pattern, and where."""


@dataclass
class Reader:
    """Reads a pattern from left to right; `at` is the next letter."""

    text: str
    anchors: bool  # whether `^` and `$` may stand at the ends
    ignoring_case: bool
    dot_matches_all: bool
    at: int = 0
    depth: int = 0
    choices: int = 0
    names: set[str] = field(default_factory=set)

    def peek(self, n: int = 1) -> str:
        return self.text[self.at : self.at + n]

    def take(self, n: int = 1) -> str:
        taken = self.peek(n)
        self.at += n
        return taken

    def fault(self, what: str, at: int | None = None) -> PatternFault:
        return PatternFault(f"{what} (character {(self.at if at is None else at) + 1})")


def written(letter: str) -> str:
    """Return the notation of one letter, the same inside a set and outside."""
    return letter if letter.isascii() and letter.isalnum() else f"\\x{{{ord(letter):x}}}"


def escaped(reader: Reader, at: int) -> str:
    """Read what follows a backslash and return the letter that it stands for."""
    letter = reader.take()
    if not letter:
        raise reader.fault("a \\ with nothing behind it", at)
    if letter in _LETTERS:
        return _LETTERS[letter]
    if letter == "0":
        digits = re.compile(r"[0-7]{0,2}").match(reader.text, reader.at)
        return chr(int("0" + reader.take(len(digits[0] if digits else "")), 8))
    if letter in _HEX:
        digits = re.compile(f"[0-9a-fA-F]{{{_HEX[letter]}}}").match(reader.text, reader.at)
        if not digits:
            raise reader.fault(f"\\{letter} without its {_HEX[letter]} hexadecimal digits", at)
        reader.at = digits.end()
        number = int(digits[0], 16)
        if number > 0x10FFFF or 0xD800 <= number <= 0xDFFF:
            raise reader.fault(f"\\{letter}{digits[0]}, which is no letter of Unicode", at)
        return chr(number)
    if letter.isascii() and letter.isalnum():
        raise reader.fault(f"\\{letter} is not supported", at)
    return letter


def leaves_nothing(ranges: list[tuple[str, str]]) -> bool:
    """Return whether a set `[^…]` of these ranges of letters leaves no letter."""
    next_letter = 0
    for low, high in sorted(ranges):
        if ord(low) > next_letter and (next_letter, low) != (0xD800, "\ue000"):  # there are no letters between those
            return False
        next_letter = max(next_letter, ord(high) + 1)
    return next_letter > sys.maxunicode


def written_ranges(ranges: list[tuple[str, str]]) -> str:
    """Return the notation of ranges of letters inside a set."""
    return "".join(written(low) if low == high else f"{written(low)}-{written(high)}" for low, high in ranges)
