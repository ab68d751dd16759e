"""Patterns of schemas: the part of regular expressions that ECMA-262 and Python read alike.

Two readings differ in a few classes (`\\d`, `\\w`, `\\s`, `.`, `$`). A pattern therefore has two forms: the
narrow one matches what both find, the wide one what either finds. Answers are made of the narrow form; what must
not match is what the wide form does not match.
"""

from dataclasses import dataclass

from .alphabet import Ranges, inverted, joined

MAX_LENGTH = 1000
MAX_GROUPS = 50  # one inside the other

DIGIT: Ranges = ((0x30, 0x39),)
WORD: Ranges = ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A))
SPACE: Ranges = ((9, 13), (32, 32))
ABOVE: Ranges = ((0x80, 0x10FFFF),)  # Python counts many of these as digits or letters, ECMA-262 none
SPACES_OF_EITHER: Ranges = joined(
    SPACE,
    ((0x1C, 0x1F), (0x85, 0x85), (0xA0, 0xA0), (0x1680, 0x1680), (0x180E, 0x180E), (0x2000, 0x200A)),
    ((0x2028, 0x2029), (0x202F, 0x202F), (0x205F, 0x205F), (0x3000, 0x3000), (0xFEFF, 0xFEFF)),
)
LINE_ENDS: Ranges = ((10, 10), (13, 13), (0x2028, 0x2029))
CLASSES = {"d": (DIGIT, joined(DIGIT, ABOVE)), "w": (WORD, joined(WORD, ABOVE)), "s": (SPACE, SPACES_OF_EITHER)}
CONTROL = {"t": 9, "n": 10, "v": 11, "f": 12, "r": 13}


class PatternError(ValueError):
    """A pattern has something that is not read alike everywhere, or is too large; says what."""


@dataclass(frozen=True)
class Class:
    """One character: of the narrow set in an answer, of the wide one where it must not match."""

    narrow: Ranges
    wide: Ranges


@dataclass(frozen=True)
class Anchor:
    """The beginning (`^`) or the end (`$`) of the text."""

    mark: str


@dataclass(frozen=True)
class Repeat:
    """An expression several times; `most` is None without an upper bound."""

    node: "Node"
    least: int
    most: int | None


@dataclass(frozen=True)
class Sequence:
    """Expressions one behind the other."""

    nodes: tuple["Node", ...]


@dataclass(frozen=True)
class Choice:
    """One of several expressions."""

    nodes: tuple["Node", ...]


Node = Class | Anchor | Repeat | Sequence | Choice


def parsed(pattern: str) -> Node:
    """Return the parts of a pattern. Raises PatternError."""
    return _Reader(pattern).whole()


class _Reader:
    """Reads a pattern; its methods stand where the next character is `self.text[self.at]`."""

    def __init__(self, text: str) -> None:
        if len(text) > MAX_LENGTH:
            raise PatternError(f"is longer than {MAX_LENGTH:,} characters")
        self.text = text
        self.at = 0
        self.depth = 0

    def whole(self) -> Node:
        node = self._choice()
        if self.at < len(self.text):
            raise PatternError("has a ) without its (")
        return node

    def _next(self) -> str:
        return self.text[self.at : self.at + 1]

    def _taken(self, text: str) -> bool:
        if self.text.startswith(text, self.at):
            self.at += len(text)
            return True
        return False

    def _character(self) -> str:
        if self.at >= len(self.text):
            raise PatternError("ends too early")
        self.at += 1
        return self.text[self.at - 1]

    def _choice(self) -> Node:
        nodes = [self._sequence()]
        while self._taken("|"):
            nodes.append(self._sequence())
        return nodes[0] if len(nodes) == 1 else Choice(tuple(nodes))

    def _sequence(self) -> Node:
        nodes: list[Node] = []
        while self._next() not in ("", "|", ")"):
            nodes.append(self._repeated(self._atom()))
        return Sequence(tuple(nodes))

    def _atom(self) -> Node:
        c = self._character()
        if c == "(":
            return self._group()
        if c == "[":
            return self._set()
        if c in "^$":
            return Anchor(c)
        if c == ".":
            return Class(inverted(LINE_ENDS), inverted(((10, 10),)))
        if c == "\\":
            return self._escape(in_set=False)
        if c in "*+?" or (c == "{" and (self._next().isdigit() or self._next() == ",")):
            raise PatternError(f"has {c} where nothing can be repeated")
        return _one(ord(c))

    def _group(self) -> Node:
        self.depth += 1
        if self.depth > MAX_GROUPS:
            raise PatternError(f"has more than {MAX_GROUPS} groups inside each other")
        if self._taken("?P<"):
            while self._character() != ">":
                pass
        elif self._next() == "?" and not self._taken("?:"):
            raise PatternError(f"has ({self.text[self.at : self.at + 2]}: lookaround or flags")
        node = self._choice()
        if not self._taken(")"):
            raise PatternError("has a ( without its )")
        self.depth -= 1
        return node

    def _repeated(self, node: Node) -> Node:
        counts = self._counts()
        if counts is None:
            return node
        if isinstance(node, Anchor):
            raise PatternError(f"repeats {node.mark}")
        if not self._taken("?") and self._next() == "+":  # lazy finds the same texts, possessive does not
            raise PatternError("has a possessive repetition")
        if self._next() in ("*", "+", "?") or self._counts() is not None:
            raise PatternError("repeats a repetition")
        return Repeat(node, *counts)

    def _counts(self) -> tuple[int, int | None] | None:
        for mark, counts in (("*", (0, None)), ("+", (1, None)), ("?", (0, 1))):
            if self._taken(mark):
                return counts
        end = self.text.find("}", self.at)
        if self._next() != "{" or end < 0:
            return None
        least, comma, most = self.text[self.at + 1 : end].partition(",")
        if not _is_count(least) or not (most == "" or _is_count(most)):
            if least == "" and comma and (most == "" or _is_count(most)):
                raise PatternError("has {,n}; write {0,n}")
            return None
        self.at = end + 1
        low, high = int(least), (int(most) if most else None if comma else int(least))
        if high is not None and high < low:
            raise PatternError(f"has {{{least},{most}}}")
        return low, high

    def _set(self) -> Node:
        negated = self._taken("^")
        narrow: Ranges = ()
        wide: Ranges = ()
        first = True
        while first or self._next() != "]":
            if first and self._next() == "]":
                raise PatternError("has [] or [^]")
            first = False
            low = self._set_member()
            if self._next() == "-" and self.text[self.at + 1 : self.at + 2] not in ("]", ""):
                self.at += 1
                high = self._set_member()
                low = _range(low, high)
            narrow, wide = joined(narrow, low.narrow), joined(wide, low.wide)
        self.at += 1
        return Class(inverted(wide), inverted(narrow)) if negated else Class(narrow, wide)

    def _set_member(self) -> Class:
        c = self._character()
        return self._escape(in_set=True) if c == "\\" else _one(ord(c))

    def _escape(self, *, in_set: bool) -> Class:
        c = self._character()
        if c.lower() in CLASSES:
            narrow, wide = CLASSES[c.lower()]
            return Class(narrow, wide) if c.islower() else Class(inverted(wide), inverted(narrow))
        if c in CONTROL:
            return _one(CONTROL[c])
        if c == "b" and in_set:
            return _one(8)
        if c == "0" and not self._next().isdigit():
            return _one(0)
        if c in "xu":
            digits = self.text[self.at : self.at + (2 if c == "x" else 4)]
            self.at += len(digits)
            if len(digits) != (2 if c == "x" else 4) or not all(d in "0123456789abcdefABCDEF" for d in digits):
                raise PatternError(f"has \\{c} without its digits")
            return _one(int(digits, 16))
        if c.isalnum():
            raise PatternError(f"has \\{c}")
        return _one(ord(c))


def _one(code: int) -> Class:
    if 0xD800 <= code <= 0xDFFF:
        raise PatternError("has half a surrogate pair")
    return Class(((code, code),), ((code, code),))


def _range(low: Class, high: Class) -> Class:
    single = low.narrow == low.wide and high.narrow == high.wide and len(low.narrow) == len(high.narrow) == 1
    if not single or low.narrow[0][0] != low.narrow[0][1] or high.narrow[0][0] != high.narrow[0][1]:
        raise PatternError("has a range of classes")
    ends = low.narrow[0][0], high.narrow[0][0]
    if ends[0] > ends[1]:
        raise PatternError("has a range that runs backwards")
    return Class((ends,), (ends,))


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 6
