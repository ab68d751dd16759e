"""What the user asked of a conversion, as it was said."""

from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Literal

from .choice import Choice

StrPath = str | PathLike[str]


@dataclass(frozen=True)
class Request:
    """One conversion; the options of it that are None are left to us."""

    source: StrPath
    target: StrPath
    choice: Choice  # how weights are packed
    dtype: str | None = None  # of everything that is not packed
    adapter: StrPath | None = None  # to be merged
    method: str | None = None  # how weights are rounded
    calibrate: Path | None = None  # a text to round on
    verify_on: Path | Literal[True] | None = None  # a text to compare on; True for our own
    overwrite: bool = False  # the target, if it is a model folder
    dry_run: bool = False
    allow_nonfinite: bool = False  # weights that are NaN or infinite are no error
