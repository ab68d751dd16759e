"""A conversation as a text in Markdown, and a new file for it."""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from mistral_mlx.errors import OptionError, shown
from mistral_mlx.session.turns import Message, turn_start

SPEAKERS = {"user": "You", "assistant": "Model", "system": "System"}


def written(model: str, system: str, messages: Sequence[Message], *, n_turns: int | None = None) -> str:
    """Return the conversation, or its last `n_turns`, as Markdown. Raises OptionError if there are not as many."""
    if n_turns is not None and n_turns < 1:
        raise OptionError(f"-n is {n_turns}; it must be at least 1")
    if n_turns is not None:
        return "\n\n".join(_parts(messages[turn_start(messages, n_turns) :])) + "\n"
    before: list[Message] = [{"role": "system", "content": system}] if system else []
    return "\n\n".join([f"# A chat with {model}", *_parts([*before, *messages])]) + "\n"


def write_new(path: Path, text: str) -> None:
    """Write a new file, completely or not at all. Raises OptionError if it exists."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_text(text, encoding="utf-8", errors="replace")
        os.link(draft, path)  # unlike a rename, replaces nothing
    except FileExistsError:
        raise OptionError(f"{shown(str(path), limit=200)} exists; take another name") from None
    except OSError as error:
        raise OptionError(f"{shown(str(path), limit=200)} cannot be written: {error.strerror}") from error
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)


def _parts(messages: Sequence[Message]) -> Iterator[str]:
    for message in messages:
        mark = " (interrupted)" if message.get("interrupted") else ""
        yield f"## {SPEAKERS[str(message['role'])]}{mark}\n\n{str(message['content']).strip()}"
