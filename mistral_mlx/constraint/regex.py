"""Regular expressions as Python's `re` has them, translated for llguidance. It does not know what they are for.

What comes out is in the notation of Rust's `regex`, and matches only texts that `re.fullmatch` matches, too. Every
letter of it is made here: nothing of the given pattern is passed on as it stands.

| in the pattern | matches |
|---|---|
| `\\d` | 0-9 |
| `\\s` | blank, tab, line feed, carriage return, form feed, vertical tab |
| `\\w` | letters and digits of all scripts, and `_` |
| `\\p{Lu}`, `\\p{Greek}` | letters with a property of Unicode, as in ripgrep |
| `.` | all but a line feed; with `(?s)` that, too |
| `^`, `\\A` at the start, `$`, `\\Z`, `\\z` at the end | nothing: the whole text has to match anyway |
| `*?`, `+?`, `??`, `{2,3}?` | as without the last `?`: the whole text has to match anyway |

`\\D`, `\\S` and `\\W` match what is neither a `\\d` (`\\s`, `\\w`) here nor one for Python, which knows more digits.
"""

import re
from dataclasses import dataclass

from .regex_reader import PatternFault, Reader, escaped, written
from .regex_sets import letter_class, letter_set

MAX_NESTING = 50
MAX_SIZE = 100_000  # letters of an expression whose repetitions are written out
MAX_CHOICES = 500  # repetitions and groups of alternatives: the states of `a?a?…aa…` grow with the square of theirs

_ASSERTIONS = {"b": "the edge of a word", "B": "no edge of a word", "G": "the end of the last match"}
_GROUPS = {
    "?=": "a lookahead",
    "?!": "a lookahead",
    "?<=": "a lookbehind",
    "?<!": "a lookbehind",
    "?>": "an atomic group",
    "?P=": "a reference to a group",
    "?(": "a condition",
    "?|": "a branch reset",
    "?R": "a recursion",
    "?&": "a recursion",
}


@dataclass(frozen=True)
class _Part:
    """A translated part: its size with all repetitions written out, and whether it has an anchor at its ends."""

    text: str
    size: int = 1
    starts: bool = False  # with ^
    ends: bool = False  # with $


@dataclass(frozen=True)
class Translated:
    """An expression in llguidance's notation, its letters with all repetitions written out, and its choices."""

    text: str
    size: int
    choices: int


def translated(pattern: str, flags: str = "", *, anchors: bool = True) -> Translated:
    """Return `pattern` in llguidance's notation.

    `flags` are letters of `imsu`. Without `anchors`, `^` and `$` are refused everywhere. Raises PatternFault.
    """
    if bad := next((c for c in pattern if "\ud800" <= c <= "\udfff"), None):
        raise PatternFault(f"half a letter, \\u{ord(bad):04x} (character {pattern.index(bad) + 1})")
    reader = Reader(pattern, anchors, "i" in flags, "s" in flags)
    if start := re.match(r"\(\?([a-zA-Z]+)\)", pattern):
        reader.at = start.end()
        _set_flags(reader, start[1], "", 0)
    part = _alternatives(reader, at_start=True)
    if reader.peek():
        raise reader.fault("a ) without its (")
    return Translated(part.text or "(?:)", part.size, reader.choices)


def _set_flags(reader: Reader, on: str, off: str, at: int) -> None:
    if unknown := next((flag for flag in on + off if flag not in "imsu"), None):
        raise reader.fault(f"the flag {unknown} is not supported; there are i, m and s", at)
    reader.ignoring_case = ("i" in on or reader.ignoring_case) and "i" not in off
    reader.dot_matches_all = ("s" in on or reader.dot_matches_all) and "s" not in off


def _alternatives(reader: Reader, *, at_start: bool) -> _Part:
    """Read up to the end or to a closing parenthesis."""
    if reader.depth > MAX_NESTING:
        raise reader.fault(f"more than {MAX_NESTING} groups inside each other")
    branches = [_sequence(reader, at_start=at_start)]
    if reader.peek() == "|":
        _count(reader)
    while reader.peek() == "|":
        reader.take()
        branches.append(_sequence(reader, at_start=at_start))
    text = "|".join(branch.text for branch in branches)
    size = _bounded(reader, sum(branch.size for branch in branches))
    starts, ends = any(branch.starts for branch in branches), any(branch.ends for branch in branches)
    return _Part(text if len(branches) == 1 else f"(?:{text})", size, starts, ends)


def _sequence(reader: Reader, *, at_start: bool) -> _Part:
    parts: list[_Part] = []
    while reader.peek() not in ("", "|", ")"):
        at = reader.at
        part = _atom(reader, at_start=at_start)
        at_start = at_start and part.starts and not part.text
        if parts and parts[-1].ends and not (part.ends and not part.text):
            raise reader.fault("a $ that is not at the end", at - 1)
        parts.append(_repeated(reader, part))
    size = _bounded(reader, sum(part.size for part in parts))
    text = "".join(part.text for part in parts)
    return _Part(text, size, any(part.starts for part in parts), bool(parts) and parts[-1].ends)


def _count(reader: Reader) -> None:
    reader.choices += 1
    if reader.choices > MAX_CHOICES:
        raise reader.fault(f"more than {MAX_CHOICES} repetitions and groups of alternatives")


def _bounded(reader: Reader, size: int) -> int:
    if size > MAX_SIZE:
        raise reader.fault(f"more than {MAX_SIZE:,} letters, with its repetitions written out")
    return max(size, 1)


def _repeated(reader: Reader, part: _Part) -> _Part:
    """Read what says how often a part comes, if anything does."""
    at = reader.at
    if (times := _times(reader)) is None:
        return part
    _count(reader)
    if part.starts or part.ends:
        raise reader.fault("a repeated ^ or $", at)
    least, most = times
    if reader.peek() == "?":  # a lazy one; means the same for a whole text
        reader.take()
    elif reader.peek() == "+":
        raise reader.fault("a possessive repetition, such as a++, is not supported")
    at = reader.at
    if _times(reader) is not None:
        raise reader.fault("two repetitions of one part; put the first into a group", at)
    if most is not None and most < least:
        raise reader.fault(f"a repetition from {least} to {most}", at)
    size = _bounded(reader, part.size * max(least, most or 0, 1))
    return _Part(f"(?:{part.text}){{{least},{'' if most is None else most}}}", size)


def _times(reader: Reader) -> tuple[int, int | None] | None:
    """Read `*`, `+`, `?` or `{2,3}`: the least and the greatest number of times; None if none stands here."""
    if (mark := reader.peek()) in ("*", "+", "?"):
        reader.take()
        return (int(mark == "+"), 1 if mark == "?" else None)
    braces = re.compile(r"\{(?=[0-9,])([0-9]*)(?:(,)([0-9]*))?\}").match(reader.text, reader.at)
    if not braces:
        return None  # a plain brace
    reader.at = braces.end()
    if max(len(braces[1]), len(braces[3] or "")) > 6:
        raise reader.fault(f"a repetition of more than {MAX_SIZE:,} times", braces.start())
    least = int(braces[1] or 0)
    return (least, least) if not braces[2] else (least, int(braces[3]) if braces[3] else None)


def _atom(reader: Reader, *, at_start: bool) -> _Part:
    at, letter = reader.at, reader.take()
    match letter:
        case "(":
            return _group(reader, at_start=at_start)
        case "[":
            return _Part(letter_set(reader))
        case ".":
            return _Part(r"(?s:.)" if reader.dot_matches_all else r"[^\n]")
        case "^":
            return _anchor(reader, "^", at, start=True, here=at_start)
        case "$":
            return _anchor(reader, "$", at, start=False, here=True)
        case "*" | "+" | "?":
            raise reader.fault(f"a {letter} with nothing before it to repeat", at)
        case "\\":
            return _escape(reader, at, at_start=at_start)
        case _:
            reader.at = at
            if _times(reader) is not None:
                raise reader.fault("a { } with nothing before it to repeat", at)
            return _letter(reader, reader.take())


def _letter(reader: Reader, letter: str) -> _Part:
    text = written(letter)
    return _Part(f"(?i:{text})" if reader.ignoring_case else text)


def _anchor(reader: Reader, mark: str, at: int, *, start: bool, here: bool) -> _Part:
    if not reader.anchors:
        raise reader.fault(f"{mark} is not supported in an expression of a grammar", at)
    if not here:
        raise reader.fault(f"a {mark} that is not at the start", at)
    return _Part("", 0, starts=start, ends=not start)


def _escape(reader: Reader, at: int, *, at_start: bool) -> _Part:
    letter = reader.peek()
    if letter in ("d", "D", "s", "S", "w", "W", "p", "P"):
        return _Part(f"[{letter_class(reader, wide=False)}]")
    if letter in ("A", "Z", "z"):
        reader.take()
        return _anchor(reader, f"\\{letter}", at, start=letter == "A", here=letter != "A" or at_start)
    if letter in _ASSERTIONS:
        raise reader.fault(f"\\{letter}, {_ASSERTIONS[letter]}, is not supported", at)
    if (letter.isdigit() and letter != "0") or letter in ("k", "g"):
        raise reader.fault(f"\\{letter}, a reference to a group, is not supported", at)
    return _letter(reader, escaped(reader, at))


def _group(reader: Reader, *, at_start: bool) -> _Part:
    """Read what follows an opening parenthesis, up to the closing one."""
    opened, flags = reader.at - 1, (reader.ignoring_case, reader.dot_matches_all)
    if reader.peek() == "?":
        _begin_group(reader, opened)
    reader.depth += 1
    inner = _alternatives(reader, at_start=at_start)
    reader.depth -= 1
    if reader.take() != ")":
        raise reader.fault("a ( without its )", opened)
    reader.ignoring_case, reader.dot_matches_all = flags
    return _Part(f"(?:{inner.text})", inner.size, inner.starts, inner.ends)


def _begin_group(reader: Reader, opened: int) -> None:
    """Read `?:`, `?P<name>`, `?<name>` or `?i-s:`."""
    for mark, what in sorted(_GROUPS.items(), key=lambda item: -len(item[0])):
        if reader.peek(len(mark)) == mark:
            raise reader.fault(f"{what}, ({mark}…), is not supported", opened)
    begin = re.compile(r"\?(?:P?<(\w+)>|([a-zA-Z]*)(?:-([a-zA-Z]+))?(:))").match(reader.text, reader.at)
    if not begin:
        if re.compile(r"\?[a-zA-Z]+\)").match(reader.text, reader.at):
            raise reader.fault("flags that are not at the start", opened)
        raise reader.fault(f"({reader.peek(2)} is not supported", opened)
    reader.at = begin.end()
    if begin[1]:
        if begin[1] in reader.names:
            raise reader.fault("two groups of one name", opened)
        reader.names.add(begin[1])
    _set_flags(reader, begin[2] or "", begin[3] or "", opened)
