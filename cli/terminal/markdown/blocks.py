"""Reads how a line begins: the quotes and list items that it is in, and what kind of line it is.

A line that comes in pieces is read again with each piece until its kind is certain. Tabs are spaces here.
"""

import re
from enum import Enum, auto
from typing import NamedTuple

MAX_DEPTH = 12  # quotes and items in each other; further marks are text
MAX_START = 1000  # characters that may be needed to know the kind of a line; a longer table row or rule is text


class Kind(Enum):
    BLANK = auto()
    TEXT = auto()  # the first line of a paragraph
    MORE = auto()  # a further line of it
    HEADING = auto()
    UNDERLINE = auto()  # of a heading that was taken for a paragraph
    RULE = auto()
    FENCE = auto()
    CODE = auto()  # a line inside a fence, or an indented one


class Leaf(Enum):
    """What a line may go on with."""

    NONE = auto()
    PARAGRAPH = auto()
    FENCE = auto()
    TABLE = auto()  # or a row that may be the header of one


class Container(NamedTuple):
    """A quote, or a list item: shown as `mark` after `indent` spaces; its contents begin `offset` columns further."""

    mark: str
    indent: int = 0
    offset: int = 0

    @property
    def is_quote(self) -> bool:
        return not self.offset


class Line(NamedTuple):
    """How a line begins: it is in the first `n_matched` of the containers, and in those it opens."""

    n_matched: int
    opened: tuple[Container, ...]
    kind: Kind
    place: int  # where its text begins
    indent: int = 0  # columns before it
    mark: str = ""  # of a heading, rule or fence


QUOTE, BULLET = "│", "•"
_HEADING = re.compile(r"(#{1,6})(?: +|$)")
_ITEM = re.compile(r"([-+*]|(\d{1,9})[.)])( +|$)")
_TASK = re.compile(r"(\[[ xX]\]) +(?=\S)")
_RULE = re.compile(r"([-*_])(?: *\1){2,} *")
_FENCE = re.compile(r"(`{3,})[^`]*|(~{3,}).*")
_UNDERLINE = re.compile(r"=+ *|-+ *")
_DELIMITER = re.compile(r"[|:\- ]+")
# Beginnings of lines whose kind is not certain yet.
_OPEN = re.compile(
    r"#{1,6}|`{1,2}|`{3,}[^`]*|~{1,2}|~{3,}.*|([-*_])(?: *\1)* *|\+ *|\d{1,9}(?:[.)] *)?|>|\|.*"
    r"|(?:[-+*]|\d{1,9}[.)]) {1,4}\[(?:[ xX](?:\] *)?)?"
)
_OPEN_UNDERLINE = re.compile(r"=+ *")


def read(line: str, containers: list[Container], leaf: Leaf, *, ended: bool) -> Line | None:
    """Return how `line`, which comes after others, begins; None if more of it is needed.

    `containers` are those of the line before.
    """
    is_long = len(line) > MAX_START
    ended, line = ended or is_long, line[: MAX_START + 1]
    n_matched, place = _matched(line, containers)
    is_inside = n_matched == len(containers)
    if not ended and not line[place:].strip(" "):
        return None
    if leaf is Leaf.FENCE and is_inside:
        return Line(n_matched, (), Kind.CODE, place)
    opened = list[Container]()
    while True:
        rest = line[place:].lstrip(" ")
        at = len(line) - len(rest)
        goes_on = leaf is Leaf.PARAGRAPH and not opened
        if rest and at - place > 3:
            kind, start = (Kind.MORE, at) if goes_on else (Kind.CODE, place)
            return Line(n_matched, tuple(opened), kind, start, at - place)
        if not ended and _is_open(rest, leaf, goes_on=goes_on and is_inside):
            return None
        depth = n_matched + len(opened)
        begun = _container(rest, at - place, goes_on=goes_on and is_inside) if depth < MAX_DEPTH else None
        if begun is None:
            break
        opened.append(begun[0])
        place = at + begun[1]
    kind, mark, n = _kind(rest, goes_on=goes_on, can_underline=goes_on and is_inside, is_long=is_long)
    return Line(n_matched, tuple(opened), kind, at + n, at - place, mark)


def _matched(line: str, containers: list[Container]) -> tuple[int, int]:
    """Return how many of the containers the line goes on in, and the place after their marks."""
    place = 0
    for n, container in enumerate(containers):
        rest = line[place:].lstrip(" ")
        at = len(line) - len(rest)
        if container.is_quote:
            if at - place > 3 or rest[:1] != ">":
                return n, place
            place = at + 1 + (rest[1:2] == " ")
        elif not rest or at - place >= container.offset:
            place = min(place + container.offset, len(line))
        else:
            return n, place
    return len(containers), place


def _is_open(rest: str, leaf: Leaf, *, goes_on: bool) -> bool:
    """Return whether more of the line may make another kind of it."""
    if not rest or _OPEN.fullmatch(rest):
        return True
    if leaf is Leaf.TABLE and _DELIMITER.fullmatch(rest):
        return True
    return goes_on and bool(_OPEN_UNDERLINE.fullmatch(rest))


def _container(rest: str, indent: int, *, goes_on: bool) -> tuple[Container, int] | None:
    """Return the quote or item that begins here and the length of its mark; `goes_on` in a paragraph, fewer do."""
    if rest[:1] == ">":
        return Container(QUOTE), 1 + (rest[1:2] == " ")
    item = _ITEM.match(rest)
    if not item or _RULE.fullmatch(rest) or (goes_on and _UNDERLINE.fullmatch(rest)):
        return None
    is_empty, n_spaces = item.end() == len(rest), len(item[3])
    if goes_on and (is_empty or item[2] not in (None, "1")):
        return None
    n = len(item[1]) + (1 if is_empty or n_spaces > 4 else n_spaces)
    if task := _TASK.match(rest, n):
        return Container(task[1].lower(), indent, indent + n), task.end()
    return Container(item[1] if item[2] else BULLET, indent, indent + n), n


def _kind(rest: str, *, goes_on: bool, can_underline: bool, is_long: bool) -> tuple[Kind, str, int]:
    """Return the kind of a line, its mark, and the length of what is not its text."""
    if heading := _HEADING.match(rest):
        return Kind.HEADING, heading[1], heading.end()
    if not is_long:
        if not rest:
            return Kind.BLANK, "", 0
        if can_underline and _UNDERLINE.fullmatch(rest):
            return Kind.UNDERLINE, rest[0], 0
        if _RULE.fullmatch(rest):
            return Kind.RULE, "", 0
        if fence := _FENCE.fullmatch(rest):
            return Kind.FENCE, fence[1] or fence[2], 0
    return (Kind.MORE if goes_on else Kind.TEXT), "", 0
