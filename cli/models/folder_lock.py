"""Locks a folder, so that one process at a time reads, changes and replaces its files."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of the existing `folder`; first wait for another process that holds it.

    The lock ends with the process, even if the process is killed. On a file system without locks nothing is locked.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
