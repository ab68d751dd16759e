"""A lock on a folder: one process at a time reads, changes and replaces the files in it."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of the existing `folder`; wait for another process that holds it.

    It ends with the process, also if that is killed. File systems without locks give none, and the caller goes on.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
