"""Files that are there as a whole or not at all: written under another name, synced, and renamed.

A process that is killed leaves its partial file; the next one that comes along removes it.
"""

import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

STALE_SECONDS = 60  # since the last byte was written
_PARTIAL = re.compile(r"\.(.+)\.[0-9a-f]{16}\.partial", re.ASCII)


def partial_path(path: Path) -> Path:
    """Return a new name next to `path`, for the time that it is being written."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.partial")


def is_stale_partial(path: Path, name: str | None = None) -> bool:
    """Whether a killed process left the file `path` when it wrote one called `name`, or of any name.

    Raises OSError if the file is gone.
    """
    match = _PARTIAL.fullmatch(path.name)
    return bool(match and name in (None, match[1]) and time.time() - path.stat().st_mtime > STALE_SECONDS)


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a new file, mode 0600; sync it to the disk at the end, or remove it after an error."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        with suppress(OSError):
            path.unlink()
        raise


def sync_folder(folder: Path) -> None:
    """Sync the names in `folder` to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
