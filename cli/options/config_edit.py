"""Changes one value in the text of a TOML file, and leaves its comments, its order and everything else."""

import json
import re
from collections.abc import Iterator
from typing import NamedTuple

from mistral_mlx.errors import OptionError

from .sources import key_of

COMMENTED_TABLE = re.compile(r"#\s*\[")  # in a draft


class _Statement(NamedTuple):
    """Some lines of a file: a key and its value, or the header of a table."""

    start: int
    end: int
    table: str
    key: str  # empty for a header


def with_value(text: str, table: str, key: str, value: object) -> str:
    """Return a TOML text in which the key of a table (an empty one is that above the first) has a value.

    Raises OptionError if no change of one statement does that.
    """
    lines, literal = _lines(text), _literal(value)
    at = _found(lines, table, key)
    if at is not None:
        old = "".join(lines[at.start : at.end])
        left = old[: old.index("=")].rstrip()
        lines[at.start : at.end] = [f"{left} = {literal}{_comment(old)}\n"]
    else:
        place = _place(lines, table, key)
        if place is None:
            gap = [] if not lines or lines[-1] == "\n" else ["\n"]
            lines = [*_ended(lines), *gap, f"[{table}]\n"]
            place = len(lines)
        lines = [*_ended(lines[:place]), f"{key} = {literal}\n", *lines[place:]]
    return _checked(text, "".join(lines), table, key, value)


def without_value(text: str, table: str, key: str) -> str | None:
    """Return a TOML text in which the key of a table has no value; None if it has none already."""
    lines = _lines(text)
    at = _found(lines, table, key)
    if at is None:
        if (table, key) in _values(text):
            raise _impossible(table, key)
        return None
    del lines[at.start : at.end]
    if _is_blank(lines, at.start) and (at.start == 0 or _is_blank(lines, at.start - 1)):
        del lines[at.start]  # it stood below what is gone
    return _checked(text, "".join(lines), table, key, None)


def _lines(text: str) -> list[str]:
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def _is_blank(lines: list[str], i: int) -> bool:
    return i < len(lines) and not lines[i].strip()


def _ended(lines: list[str]) -> list[str]:
    """Return the lines with a line feed after the last one."""
    return [*lines[:-1], lines[-1].removesuffix("\n") + "\n"] if lines else []


def _statements(lines: list[str]) -> Iterator[_Statement]:
    """Yield the statements of a valid text. One ends where its lines are TOML by themselves."""
    start, table = 0, ""
    while start < len(lines):
        end = start + 1
        while (found := _parsed("".join(lines[start:end]))) is None and end < len(lines):
            end += 1
        path = _path(found or {})
        if lines[start].lstrip().startswith("["):
            table = ".".join(path)
            yield _Statement(start, end, table, "")
        elif path:
            yield _Statement(start, end, ".".join(filter(None, (table, *path[:-1]))), key_of(path[-1]))
        start = end


def _path(found: dict[str, object]) -> list[str]:
    """Return the keys, each in the one before, of a statement."""
    path = []
    value: object = found
    while isinstance(value, dict) and len(value) == 1:
        key, value = next(iter(value.items()))
        path.append(key)
    return path


def _found(lines: list[str], table: str, key: str) -> _Statement | None:
    return next((s for s in _statements(lines) if (s.table, s.key) == (table, key)), None)


def _place(lines: list[str], table: str, key: str) -> int | None:
    """Return the line before which a new statement belongs; None if its table is not there.

    That is after the same key in a comment, as a draft has it, else after the last statement of the table.
    """
    statements = list(_statements(lines))
    header = next((s for s in statements if not s.key and s.table == table), None)
    if table and header is None:
        return None
    begin = header.end if header else 0
    end = next((s.start for s in statements if not s.key and s.start >= begin), len(lines))
    for i in range(begin, end):
        if COMMENTED_TABLE.match(lines[i]):
            break
        if re.match(rf"#\s*{key}\s*=", lines[i]):
            return i + 1
    inside = [s.end for s in statements if begin < s.end <= end]
    if inside or table:
        return max(inside, default=begin)
    while end < len(lines) and end > 0 and lines[end - 1].startswith("#"):  # they belong to the first header
        end -= 1
    return end


def _comment(statement: str) -> str:
    """Return the comment at the end of a statement, with two spaces before it; empty if it has none."""
    whole = _parsed(statement)
    for match in re.finditer("#", statement):
        if _parsed(statement[: match.start()]) == whole:
            return "  " + statement[match.start() :].rstrip()
    return ""


def _literal(value: object) -> str:
    """Return a value as TOML, which for our values is JSON but for one character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _checked(old: str, new: str, table: str, key: str, value: object) -> str:
    """Return the `new` text if it differs from the `old` one in this value alone. Raises OptionError if not."""
    expected = {at: found for at, found in _values(old).items() if at != (table, key)}
    if value is not None:
        expected[table, key] = value
    if _parsed(new) is None or _values(new) != expected:
        raise _impossible(table, key)
    return new


def _impossible(table: str, key: str) -> OptionError:
    name = f"{table}.{key}".lstrip(".")
    return OptionError(f"{name} cannot be changed here without a change of other lines; use: mistral-mlx config edit")


def _values(text: str) -> dict[tuple[str, str], object]:
    """Return the values of a valid text by table and key."""
    values: dict[tuple[str, str], object] = {}
    for name, value in (_parsed(text) or {}).items():
        inner = value.items() if isinstance(value, dict) else [(name, value)]
        values |= {(name if isinstance(value, dict) else "", key_of(key)): found for key, found in inner}
    return values


def _parsed(text: str) -> dict[str, object] | None:
    """Return what a text says; None if it is not TOML."""
    import tomllib

    try:
        return tomllib.loads(text)
    except ValueError:
        return None
