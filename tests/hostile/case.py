"""Defines a hostile case: a model folder with one fault, and who must refuse it.

A case changes a copy of a good folder. A row is (name, base, change, refused by, said): `said` is a regular expression
for the one line on stderr; the commands that are not named must end well, as what is wrong does not concern them.
"""

import base64
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from mistral_mlx.tokenizer.tekken import TEKKEN_PATTERN

Change = Callable[[Path], object]

ALL = "convert info complete export eval"
RUN = "complete"  # `info` names a bad tokenizer among its facts, `convert` copies what it does not read
USE = "convert complete"
GGUF = "convert"
CHAT = "chat"
MERGE = "merge"
CALIBRATE = "calibrate"
NOTHING = ""  # refused by no command: what is wrong is never looked at, or does not matter
WEIGHTS = "model.safetensors"
ESCAPES = "\x1b]52;c;aGk=\x07\x1b[2J\x9b31m[bold]x[/bold]\r\n"
PICKLE = b"\x80\x04cposix\nsystem\n(S'touch pwned'\ntR."
CODE = "raise SystemExit('pwned')"


class Case(NamedTuple):
    """A row of the table."""

    name: str
    base: str  # one of BASES in bases.py
    change: Change
    refused_by: str
    said: str = ""


# Changes


def put(name: str, content: bytes | str) -> Change:
    """Write a file."""
    return lambda folder: (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def edit(name: str, change: Callable[[dict], object]) -> Change:
    """Change the JSON object in a file."""

    def apply(folder: Path) -> None:
        value = json.loads((folder / name).read_text()) if (folder / name).exists() else {}
        change(value)
        (folder / name).write_text(json.dumps(value))

    return apply


def config(**values: object) -> Change:
    """Set keys of config.json."""
    return edit("config.json", lambda value: value.update(values))


def raw(name: str, old: str, new: str) -> Change:
    """Replace text in a file, for what json.dumps does not write."""

    def apply(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text, (name, old)
        (folder / name).write_text(text.replace(old, new, 1))

    return apply


def cut(name: str, nbytes: int) -> Change:
    """Cut off the last bytes of a file; with a negative number all but so many."""
    return lambda folder: os.truncate(folder / name, (folder / name).stat().st_size - nbytes if nbytes > 0 else -nbytes)


def sparse(name: str, nbytes: int, start: bytes = b"") -> Change:
    """A file that claims to be large and takes no room."""

    def apply(folder: Path) -> None:
        (folder / name).write_bytes(start)
        os.truncate(folder / name, nbytes)

    return apply


def outside(name: str) -> Change:
    """Make a file a link to the very same file outside of the folder."""

    def apply(folder: Path) -> None:
        place = folder.parent / "outside"
        place.mkdir(exist_ok=True)
        content = (folder / name).read_bytes() if (folder / name).exists() else b"{}"
        (place / name).write_bytes(content)
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(place / name)

    return apply


def instead(name: str, make: Callable[[Path], object]) -> Change:
    """Put something else in the place of a file."""

    def apply(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        make(folder / name)

    return apply


def both(*changes: Change) -> Change:
    """Make several changes."""
    return lambda folder: [change(folder) for change in changes]


def remove(*names: str) -> Change:
    """Remove files."""
    return lambda folder: [(folder / name).unlink() for name in names]


def place(tensor: str, name: object) -> Change:
    """Have the index place a tensor in the file `name`."""
    return edit("model.safetensors.index.json", lambda index: index["weight_map"].update({tensor: name}))


def template(text: str) -> Change:
    """Set the chat template."""
    return edit("tokenizer_config.json", lambda value: value.update(chat_template=text))


def gguf(content: bytes) -> Change:
    """Replace the GGUF file."""
    return put("model.gguf", content)


def gguf_header(pairs: int = 0, tensors: int = 0, rest: bytes = b"", *, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, pairs) + rest


def text(value: str | bytes) -> bytes:
    """A text as GGUF has it."""
    value = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(value)) + value


def session(change: Callable[[dict], object]) -> Change:
    """Change the saved session."""
    return edit("../home/sessions/s.json", change)


def tensor(n_dims: int = 1, dims: tuple[int, ...] = (32,), kind: int = 0, offset: int = 0, name: str = "t") -> bytes:
    """A tensor's description as GGUF has it."""
    return text(name) + struct.pack(f"<I{len(dims)}QIQ", n_dims, *dims, kind, offset)


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


def tiny_tekken() -> dict[str, object]:
    """A tekken.json of 20 special tokens, 256 bytes and two words."""
    tokens = [bytes([byte]) for byte in range(256)] + [b"he", b"ll"]
    vocab = [{"rank": i, "token_bytes": base64.b64encode(token).decode()} for i, token in enumerate(tokens)]
    config = {"pattern": TEKKEN_PATTERN, "num_vocab_tokens": 258, "default_vocab_size": 278, "version": "v3"}
    return {"config": config | {"default_num_special_tokens": 20}, "vocab": vocab}


def rule(**values: object) -> Change:
    """Set keys of what config.json says of quantization."""
    return edit("config.json", lambda value: value["quantization_config"].update(values))


def pair(key: str, form: str, *values: object) -> bytes:
    """A key and its value as GGUF has them; the first value is the number of the type."""
    return text(key) + struct.pack(f"<{form}", *values)
