"""Null, booleans, strings and numbers: the terminals of what several subschemas allow together."""

import json
from collections.abc import Iterable

from mistral_mlx.errors import OptionError, shown

from .alphabet import CHARACTER, WIDE_CHARACTER
from .document import Document, Place
from .expression import PatternError
from .formats import CHECKED, FORMATS
from .keywords import bounds, count, kinds, step, text, values
from .multiples import is_multiple, multiples
from .nodes import Flats, Text
from .numbers import decimals, integers, joined_bounds, listed, written
from .search import matches, searched, width
from .terminals import both, fits_something, quoted, texts
from .values import Value

MAX_WAYS = 256  # in which a text can stand towards the patterns it must match
MAX_LEAST = 1000  # of minLength beside a pattern: each step looks whether so many characters can still come


def scalar_nodes(flats: Flats, document: Document, *, wide: bool) -> list[Text]:
    """Return the terminals of all values without parts that fit `flats`. Raises OptionError."""
    found = [_one("/null/")] if _literals(flats, "null", (type(None),)) != [] else []
    flags = _literals(flats, "boolean", (bool,))
    found += [_one(f"/{json.dumps(flag)}/") for flag in (True, False) if flags is None or flag in flags]
    return [*found, *(node for make in (_string, _number) if (node := make(flats, document, wide)))]


def pattern_terminal(place: Place, pattern: str, *, wide: bool) -> str:
    """Return the terminal of the strings in which a pattern of `place` finds a match. Raises OptionError."""
    try:
        return quoted(searched(pattern, wide=wide))
    except PatternError as error:
        raise _pattern_fault(place, pattern, str(error)) from error


def is_match(place: Place, pattern: str, name: str, *, wide: bool) -> bool:
    """Say whether a pattern of `place` surely finds a match in a text; with `wide`, whether it might."""
    try:
        return matches(pattern, name, wide=wide)
    except PatternError as error:
        raise _pattern_fault(place, pattern, str(error)) from error


def check_joined(patterns: Iterable[tuple[Place, str]]) -> None:
    """Refuse patterns that are joined with each other, or with a length, if following them may take too long."""
    ways = 1
    for place, pattern in patterns:
        try:
            ways *= width(pattern)
        except PatternError as error:
            raise _pattern_fault(place, pattern, str(error)) from error
        if ways > MAX_WAYS:
            raise _pattern_fault(place, pattern, "is too hard to join with other rules")


def _pattern_fault(place: Place, pattern: str, words: str) -> OptionError:
    return place.fault(f"has the pattern {shown(pattern, limit=60)}, which {words},", "write it differently")


def _one(terminal: str) -> Text:
    return Text(terminal, (terminal,))


def _literals(flats: Flats, kind: str, types: tuple[type, ...]) -> list[Value] | None:
    """Return the values of a kind that `const` and `enum` allow; None if all are. None at all: an empty list."""
    if any(kind not in kinds(flat) and not (kind == "number" and "integer" in kinds(flat)) for flat in flats):
        return []
    found: list[Value] | None = None
    for flat in flats:
        allowed = values(flat)
        if allowed is not None:
            own = [v for v in allowed if type(v) in types]
            found = own if found is None else [v for v in found if v in own]
    return found


def _string(flats: Flats, document: Document, wide: bool) -> Text | None:
    literals = _literals(flats, "string", (str,))
    least = max(count(flat, "minLength") or 0 for flat in flats)
    most = _least(count(flat, "maxLength") for flat in flats)
    patterns = [(flat, pattern) for flat in flats if (pattern := text(flat, "pattern")) is not None]
    if literals == [] or (most is not None and most < least):
        return None
    parts = _format_terminals(flats) if not wide else []
    if literals is not None:
        strings = [s for s in literals if isinstance(s, str) and least <= len(s) and (most is None or len(s) <= most)]
        strings = [s for s in strings if all(is_match(flat, one, s, wide=wide) for flat, one in patterns)]
        if strings and not parts:
            return Text(texts(strings), tuple(texts([s]) for s in dict.fromkeys(strings)))
        terminal = both([texts(strings), *parts])
        return Text(terminal) if strings and fits_something(terminal, flats[0]) else None
    parts = [pattern_terminal(flat, pattern, wide=wide) for flat, pattern in patterns] + parts
    if least or most is not None or not parts:
        counts = "*" if not least and most is None else f"{{{least},{'' if most is None else most}}}"
        parts.insert(0, quoted((WIDE_CHARACTER if wide else CHARACTER) + counts))
    if len(parts) > 1:
        check_joined(patterns)
        if least > MAX_LEAST:
            raise flats[0].fault(f"has 'minLength' of {least:,} beside a pattern", f"give {MAX_LEAST:,} at most")
    terminal = both(parts)
    return Text(terminal) if fits_something(terminal, flats[0]) else None


def _format_terminals(flats: Flats) -> list[str]:
    found = []
    for flat in flats:
        name = text(flat, "format")
        if name in CHECKED:
            raise flat.fault(f"has the format {shown(name, limit=40)}, which cannot be guaranteed", "leave it out")
        if isinstance(name, str) and name in FORMATS:
            found.append(quoted(FORMATS[name]))
    return found


def _number(flats: Flats, document: Document, wide: bool) -> Text | None:
    literals = _literals(flats, "number", (int, float))
    whole = any("number" not in kinds(flat) for flat in flats)
    limits = joined_bounds(one for flat in flats for one in bounds(flat, document))
    steps = [(flat, one) for flat in flats if (one := step(flat)) is not None]
    if literals is None and limits.low is not None and limits.low == limits.high:
        literals = [int(limits.low) if limits.low.denominator == 1 else float(limits.low)]
    if literals is not None:
        numbers = [n for n in literals if isinstance(n, int | float) and limits.hold(n) and (not whole or n == int(n))]
        fitting = [n for n in numbers if wide or all(is_multiple(n, one) for _, one in steps)]
        each = dict.fromkeys(written(n) for n in fitting)
        return Text(f"/{listed(each)}/", tuple(f"/{listed([n])}/" for n in each)) if each else None
    if limits.are_empty(whole=whole):
        return None
    if wide:
        return Text("/0/")
    near = limits.near()
    if near is None:
        return None
    if steps:
        terminal = multiples(near, whole, steps)
        return Text(terminal) if terminal else None
    expression = integers(near) if whole else decimals(near)
    return Text(f"/{expression}/") if expression else None


def _least(numbers: Iterable[int | None]) -> int | None:
    found = [n for n in numbers if n is not None]
    return min(found) if found else None
