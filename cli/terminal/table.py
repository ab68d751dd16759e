"""The formats of reports: JSON, columns, and sizes."""

import json
from collections.abc import Iterable, Sequence

from .sanitize import inert
from .streams import write_text

TITLE_WIDTH = 13  # of a list of facts


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


def gigabytes(nbytes: int, *, from_gb: float = 1.0, mb_digits: int = 1) -> str:
    """Return a size such as 4.12 GB, or 93.4 MB below `from_gb` GB; a GB has 1e9 bytes."""
    return f"{nbytes / 1e9:.2f} GB" if nbytes >= from_gb * 1e9 else f"{nbytes / 1e6:.{mb_digits}f} MB"
