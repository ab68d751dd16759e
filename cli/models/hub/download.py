"""Fetches one file: goes on where an earlier try stopped, and gives it its name once its hash is right."""

import hashlib
import os
from collections.abc import Callable
from http.client import HTTPResponse
from pathlib import Path

from mistral_mlx.errors import ConversionError

from .repository import RemoteFile
from .web import LOST, N_TRIES, Web, pause, read_part

PART_BYTES = 1 << 20
PART_SUFFIX = ".part"  # of a file that is not whole

Advance = Callable[[int], None]  # told how many bytes of the file are there


def is_here(folder: Path, file: RemoteFile) -> bool:
    """Return whether `folder` holds `file`, whole and with the right hash."""
    path = folder / file.name
    if path.is_symlink() or not path.is_file() or path.stat().st_size != file.nbytes:
        return False
    digest = _digest(file)
    _feed(digest, path)
    return digest.hexdigest() == _wanted(file)


def nbytes_begun(folder: Path, file: RemoteFile) -> int:
    """Return how many bytes of `file` an earlier try has left in `folder`."""
    part = _part(folder, file)
    n = part.stat().st_size if part.is_file() and not part.is_symlink() else 0
    return n if n <= file.nbytes else 0


def fetch_file(web: Web, url: str, file: RemoteFile, folder: Path, advance: Advance) -> None:
    """Put `file` into `folder`, from `url` and what an earlier try has left there.

    Raises ConversionError if it cannot be fetched; what has arrived stays for the next try. A file whose hash is wrong
    is removed.
    """
    part = _part(folder, file)
    was_begun = nbytes_begun(folder, file) > 0
    found = _complete(web, url, file, part, advance)
    if found != _wanted(file) and was_begun:  # a machine that lost its power may have left a damaged beginning
        part.unlink()
        found = _complete(web, url, file, part, advance)
    if found != _wanted(file):
        part.unlink()
        raise ConversionError(
            f"{file.name} arrived damaged: its hash is {found[:16]}…, not {_wanted(file)[:16]}…; the same command "
            "fetches it again"
        )
    part.replace(folder / file.name)


class _Growing:
    """A file that grows at its end, and the hash of what is in it."""

    def __init__(self, path: Path, remote: RemoteFile) -> None:
        if path.is_symlink():
            path.unlink()
        self._remote = remote
        self._file = path.open("ab", buffering=0)  # what was written survives the end of this process
        self.n, self.digest = self._file.tell(), _digest(remote)
        if self.n > remote.nbytes:
            self._file.truncate(0)
            self.n = 0
        _feed(self.digest, path)

    def append(self, data: bytes) -> None:
        if self.n + len(data) > self._remote.nbytes:
            raise ConversionError(f"the hub sends more of {self._remote.name} than it says; try again later")
        left = memoryview(data)
        while left:
            left = left[self._file.write(left) :]  # a full disk may take a piece of it
        self.digest.update(data)
        self.n += len(data)

    def close(self) -> None:
        os.fsync(self._file.fileno())
        self._file.close()


def _complete(web: Web, url: str, file: RemoteFile, part: Path, advance: Advance) -> str:
    """Append to `part` what is missing, and return the hash of the whole."""
    growing = _Growing(part, file)
    try:
        n_failures = 0
        while (before := growing.n) < file.nbytes:
            try:
                with web.open(url, growing.n) as answer:
                    _copy(answer, growing, advance)
                if growing.n < file.nbytes:
                    raise ConnectionError("the connection was cut")
            except LOST as error:
                n_failures = 1 if growing.n > before else n_failures + 1
                if n_failures == N_TRIES:
                    raise ConversionError(web.unreachable(error)) from error
                web.wait(pause(n_failures), f"{file.name}: {error or type(error).__name__}")
    finally:
        growing.close()
    return growing.digest.hexdigest()


def _copy(answer: HTTPResponse, growing: _Growing, advance: Advance) -> None:
    """Append what `answer` holds beyond what is here; a server that knows no ranges sends the file from its start."""
    skip = growing.n if answer.status == 200 else 0
    if growing.n and not skip and not (answer.headers.get("Content-Range") or "").startswith(f"bytes {growing.n}-"):
        raise ConversionError("the hub sends another part of a file than it was asked for; try again later")
    while data := read_part(answer, min(PART_BYTES, skip or PART_BYTES)):
        if skip:
            skip -= len(data)
        else:
            growing.append(data)
            advance(growing.n)


def _part(folder: Path, file: RemoteFile) -> Path:
    """Return the path of what has arrived; the hash in it tells it from the same file of another commit."""
    return folder / f"{file.name}.{_wanted(file)[:16]}{PART_SUFFIX}"


def _wanted(file: RemoteFile) -> str:
    return file.sha256 or file.git_sha1 or ""


def _digest(file: RemoteFile) -> "hashlib._Hash":
    """Return the hash that names `file`, before its first byte: Git's covers a header, too."""
    if file.sha256:
        return hashlib.sha256()
    return hashlib.sha1(b"blob %d\0" % file.nbytes, usedforsecurity=False)


def _feed(digest: "hashlib._Hash", path: Path) -> None:
    with path.open("rb") as file:
        while data := file.read(PART_BYTES):
            digest.update(data)
