"""Files that go into the next message, each under its name; knows nothing of models."""

import glob
import os
from dataclasses import dataclass
from pathlib import Path

from mistral_mlx.cli.terminal.reading import decode, read_file
from mistral_mlx.errors import OptionError, shown

MAX_FILE_BYTES = 1_000_000  # some 250,000 tokens: more than any model here takes
MAX_BYTES = 4_000_000
MAX_FILES = 100


@dataclass(frozen=True)
class Attachment:
    """A text file: the name as it was given, the text, and the path that tells one file from another."""

    name: str
    text: str
    path: Path


def read(path: str) -> Attachment:
    """Return the text file at `path`. Raises OptionError if it is missing, too large, or no text."""
    file = Path(os.path.expanduser(path))
    name = shown(path, limit=200)
    try:
        if not file.is_file():
            raise OptionError(f"there is no file {name}" if not file.exists() else f"{name} is not a file")
        if file.stat().st_size > MAX_FILE_BYTES:
            raise OptionError(f"{name} has {file.stat().st_size:,} bytes; the limit is {MAX_FILE_BYTES:,}")
        text = decode(read_file(file, "file"), path)
    except OSError as error:
        raise OptionError(f"{name} cannot be read: {error.strerror}") from error
    if "\0" in text:
        raise OptionError(f"{name} is a binary file")
    return Attachment(path, text, file.resolve())


def find(pattern: str) -> tuple[list[Attachment], list[str]]:
    """Return the text files that `pattern` matches, by name, and why others were left out.

    Raises OptionError if none matches, or more than MAX_FILES do.
    """
    names = sorted(name for name in glob.iglob(os.path.expanduser(pattern), recursive=True) if Path(name).is_file())
    if not names:
        raise OptionError(f"no file matches {shown(pattern, limit=200)}")
    if len(names) > MAX_FILES:
        raise OptionError(f"{len(names):,} files match {shown(pattern)}; the limit is {MAX_FILES}")
    found, left_out = list[Attachment](), list[str]()
    for name in names:
        try:
            found.append(read(name))
        except OptionError as error:
            left_out.append(str(error))
    return found, left_out


def added(attachments: list[Attachment], found: list[Attachment]) -> tuple[list[Attachment], set[Path]]:
    """Return `attachments` with those `found`, and the paths of those that were replaced.

    A file that is there already keeps its place; of one that is found twice, the last counts.
    """
    files = {attachment.path: attachment for attachment in attachments}
    replaced = {attachment.path for attachment in found} & files.keys()
    return list((files | {attachment.path: attachment for attachment in found}).values()), replaced


def check_size(attachments: list[Attachment]) -> None:
    """Raise OptionError if together they are too large for a message."""
    n_bytes = sum(len(attachment.text.encode()) for attachment in attachments)
    if n_bytes > MAX_BYTES:
        raise OptionError(f"the files for the next message have {n_bytes:,} bytes; the limit is {MAX_BYTES:,}")


def with_files(text: str, attachments: list[Attachment]) -> str:
    """Return the message `text` behind the files."""
    files = [f"--- File: {attachment.name} ---\n{attachment.text.rstrip()}\n" for attachment in attachments]
    return "\n".join([*files, text])
