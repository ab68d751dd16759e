"""The size of the terminal as it is now; COLUMNS, which a shell may have exported long ago, counts only in a pipe."""

import os
import shutil
import sys
from contextlib import suppress


def columns() -> int:
    """Return the cells of a row of the terminal."""
    return _size().columns or 80


def rows() -> int:
    """Return the rows of the terminal."""
    return _size().lines or 24


def _size() -> os.terminal_size:
    for stream in (sys.__stdout__, sys.__stderr__):
        with suppress(OSError, ValueError, AttributeError):
            return os.get_terminal_size(stream.fileno())  # type: ignore[union-attr]  # it may be closed
    return shutil.get_terminal_size()
