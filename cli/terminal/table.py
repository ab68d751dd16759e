"""The formats of reports: JSON, columns, and sizes."""

import json
from collections.abc import Iterable, Sequence
from typing import TypeVar, cast

from .sanitize import inert
from .streams import write_text

TITLE_WIDTH = 13  # of a list of facts
DIGITS = 6  # of a measured number, more than repeat from run to run

T = TypeVar("T")


def print_json(value: object) -> None:
    """Write `value` to stdout as one line of JSON."""
    write_text(json.dumps(value, ensure_ascii=False) + "\n")


def facts(rows: Iterable[tuple[str, str]]) -> str:
    """Return a line for each title and text, the texts below each other."""
    return "".join(f"{title:<{TITLE_WIDTH}}{inert(text)}".rstrip() + "\n" for title, text in rows)


def table(rows: Sequence[Sequence[str]], *, max_width: int | None = None) -> str:
    """Return a line for each row, its cells in columns; a cell wider than `max_width` moves the rest of its row."""
    rows = [[inert(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)][:-1]
    if max_width is not None:
        widths = [min(width, max_width) for width in widths]
    return "".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip() + "\n"
        for row in rows
    )


def gigabytes(nbytes: float) -> str:
    """Return a size such as 4.12 GB, 93.4 MB or 7.5 kB; a GB has 1e9 bytes."""
    if nbytes >= 1e9:
        return f"{nbytes / 1e9:.2f} GB"
    return f"{nbytes / 1e6:.1f} MB" if nbytes >= 1e5 else f"{nbytes / 1e3:.1f} kB"


def rounded(value: T, digits: int = DIGITS) -> T:
    """Return a record of measurements with `digits` significant digits in each number that is not whole."""
    return cast("T", _rounded(value, digits))


def _rounded(value: object, digits: int) -> object:
    if isinstance(value, dict):
        return {key: _rounded(item, digits) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item, digits) for item in value]
    return float(f"{value:.{digits}g}") if isinstance(value, float) else value
