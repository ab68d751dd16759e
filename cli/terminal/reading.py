"""Reads texts that a user gives: files and standard input, as UTF-8 without a byte order mark."""

import codecs
import fcntl
import os
import select
import stat
import sys
import termios
from pathlib import Path

from mistral_mlx.distributed.launched import RANK
from mistral_mlx.errors import OptionError, shown

from .notes import note

WAIT_S = 1.0  # after which a silent standard input is worth a remark
STDIN = "standard input"


def read_stdin(*, alone: bool = True, quiet: bool = False) -> bytes:
    """Return the bytes of standard input. A terminal is read only if there is no other source (`alone`).

    Unless `quiet`, a remark says that it makes the user wait, or that a pipe was empty beside another source.
    """
    if RANK in os.environ:  # mlx.launch passes on what is typed, and never an end
        if alone:
            raise OptionError("standard input has no end under mlx.launch; give the text as an argument or in a file")
        if not quiet and _has_data():
            note("standard input is not read where processes share a model; give the text in a file")
        return b""
    if not sys.stdin.isatty():
        if not alone and not quiet and not select.select([sys.stdin], [], [], WAIT_S)[0]:
            note("waiting for standard input to end; add </dev/null if there is none")
        data = sys.stdin.buffer.read()
        if not data and not alone and not quiet and _is_pipe():
            note("standard input was empty")
        return without_mark(data)
    if not alone:
        return b""
    note("reading the text from the terminal; Ctrl-D ends it")
    return without_mark(sys.stdin.buffer.read())


def _has_data() -> bool:
    """Whether a pipe has something to read already."""
    try:
        waiting = fcntl.ioctl(sys.stdin.fileno(), termios.FIONREAD, bytes(4)) if _is_pipe() else bytes(4)
    except OSError:
        return False
    return any(waiting)


def _is_pipe() -> bool:
    """Whether standard input is what another program writes; /dev/null is none, and means to be empty."""
    try:
        return stat.S_ISFIFO(os.fstat(sys.stdin.fileno()).st_mode)
    except OSError:  # of a stream that is no file
        return False


def read_file(path: Path, what: str) -> bytes:
    """Return the content of a file. Raises OptionError, which calls it `what`, if it cannot be read."""
    try:
        return without_mark(path.read_bytes())
    except OSError as error:
        raise OptionError(f"the {what} {shown(str(path), limit=200)} cannot be read: {error.strerror}") from error


def decode(data: bytes, source: str) -> str:
    """Return bytes as text. Raises OptionError, which names `source`, if they are not UTF-8."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        place = f"byte 0x{data[error.start]:02x} at {error.start}"
        raise OptionError(f"{shown(source, limit=200)} is not UTF-8 text: {place}") from error


def without_mark(data: bytes) -> bytes:
    """Return `data` without the byte order mark that some editors write first; to a model it is three tokens."""
    return data.removeprefix(codecs.BOM_UTF8)
