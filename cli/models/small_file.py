"""Reads small files that may be anything: a FIFO does not make it wait, and a large file does not fill the memory."""

import os
import stat
from pathlib import Path

from mistral_mlx.errors import ModelError, shown

MAX_SMALL_BYTES = 1 << 20


def small_text(path: Path, limit: int = MAX_SMALL_BYTES, *, follow: bool = False) -> str | None:
    """Return the text of a file of at most `limit` bytes; None if there is none.

    Raises ModelError if it is longer, a link unless they are to `follow`, not a regular file, or not UTF-8.
    """
    try:
        descriptor = os.open(
            path, os.O_RDONLY | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW)
        )  # a FIFO would make it wait
        try:
            is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
            data = os.read(descriptor, limit + 1) if is_file else b""
        finally:
            os.close(descriptor)
        if is_file and len(data) <= limit:
            return data.decode("utf-8")
        why = f"it has more than {limit:,} bytes" if is_file else "it is not a regular file"
    except (FileNotFoundError, NotADirectoryError):
        return None
    except UnicodeDecodeError:
        why = "it is not UTF-8 text"
    except OSError as error:
        why = error.strerror or str(error)
    raise ModelError(f"{shown(str(path), limit=200)} cannot be read: {why}")


def is_gguf(folder: Path) -> bool:
    """Return whether a folder holds a GGUF file, and no model in another form beside it."""
    return not os.path.exists(folder / "config.json") and next(folder.glob("*.gguf"), None) is not None
