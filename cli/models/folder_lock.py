"""Locks a folder, so that one process at a time reads, changes and replaces its files."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def locked(folder: Path, wait: Callable[[], None] = lambda: None) -> Iterator[int]:
    """Hold the lock of the existing `folder`, and give its inode; call `wait` if another process holds the lock.

    The lock ends with the process, even if the process is killed. On a file system without locks nothing is locked.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            _lock(descriptor, wait)
        yield os.fstat(descriptor).st_ino
    finally:
        os.close(descriptor)


def _lock(descriptor: int, wait: Callable[[], None]) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        wait()
        fcntl.flock(descriptor, fcntl.LOCK_EX)
