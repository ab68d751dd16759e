"""The last completion, kept as text so that `complete --continue` goes on from it; the file is only for its owner."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mistral_mlx.cli.models.home import home
from mistral_mlx.errors import ModelError, OptionError, SessionError, shown
from mistral_mlx.files.json import parse_json
from mistral_mlx.files.whole import is_stale_partial, new_file, partial_path

if TYPE_CHECKING:
    from .prompt import Prompt

NAME = "last-completion.json"
FORMAT, VERSION = "mistral-mlx completion", 1
MAX_BYTES = 16 * 1024 * 1024
ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class LastCompletion:
    """What was said, without reasoning; `folder` is that of the model, `model` what the user called it."""

    model: str
    folder: str
    template: str | None  # the chat format, if it was named
    system: str | None  # as it was given: "@model" is the one that comes with the model
    messages: Sequence[Mapping[str, object]]

    def path(self) -> Path:
        """Return the folder of the model. Raises ModelError if it is gone."""
        path = Path(self.folder)
        if not path.is_dir():
            raise ModelError(
                f"the model of the last completion, {shown(self.model)}, is gone from {shown(self.folder, limit=200)}; "
                "name another one with --model"
            )
        return path

    def before(self, prompt: Prompt) -> Prompt:
        """Return `prompt` as what is said next; its own system prompt and chat format, if it has any, come first."""
        return replace(
            prompt,
            messages=[*self.messages, {"role": "user", "content": prompt.text}],
            system=self.system if prompt.system is None else prompt.system,
            template=self.template if prompt.template is None else prompt.template,
        )


def check_continues(excluding: Mapping[str, bool]) -> None:
    """Raise OptionError for the first option that is used and cannot go on with a conversation."""
    for name in (name for name, is_used in excluding.items() if is_used):
        raise OptionError(f"--continue goes on with one conversation, and {name} has none; leave out one of them")


def keeper(prompt: Prompt, model: str, folder: Path, say: Callable[[str], None]) -> Callable[[str], None] | None:
    """Return what keeps `prompt` with its answer; None if it is no conversation of texts alone.

    `say` is told why nothing could be kept, which is no error.
    """
    asked = prompt.messages or [{"role": "user", "content": prompt.text}]
    if prompt.tools or not _are_texts(asked):
        return None
    system = prompt.system if isinstance(prompt.system, str) else None

    def keep(answer: str) -> None:
        messages = [*asked, {"role": "assistant", "content": answer}]
        try:
            save(LastCompletion(model, str(folder.resolve()), prompt.template, system, messages))
        except OSError as error:
            say(f"this completion cannot be kept for --continue: {error.strerror or error} (--no-save keeps none)")

    return keep


def save(last: LastCompletion) -> None:
    """Write the file, mode 0600, in place of the old one. One that is too large is not kept. Raises OSError."""
    path = _file()
    plain = {"model": last.model, "folder": last.folder, "template": last.template, "system": last.system}
    document = {"format": FORMAT, "version": VERSION, **plain, "messages": list(last.messages)}
    data = json.dumps(document).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    if len(data) > MAX_BYTES:
        path.unlink(missing_ok=True)  # what is older is not the last
        return
    partial = partial_path(path)
    try:
        with new_file(partial) as file:
            file.write(data)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    for left in path.parent.glob(f".{NAME}.*.partial"):
        with suppress(OSError):
            if is_stale_partial(left, NAME):
                left.unlink()


def load() -> LastCompletion:
    """Return the last completion. Raises OptionError if none is kept, SessionError if the file is damaged."""
    path = _file()
    try:
        with open(path, "rb", opener=_open) as file:
            data = file.read(MAX_BYTES + 1)
        text = data.decode("utf-8")
    except FileNotFoundError:
        raise OptionError("there is no completion yet to go on with (--continue); leave the option out") from None
    except UnicodeDecodeError as error:
        raise _damaged("it is not UTF-8") from error
    except OSError as error:
        raise SessionError(f"{shown(str(path), limit=200)} cannot be read: {error.strerror or error}") from error
    if len(data) > MAX_BYTES:
        raise _damaged(f"it has more than {MAX_BYTES:,} bytes")
    try:
        document = parse_json(text, name=NAME, error=SessionError, any_text=True)
    except SessionError as error:
        raise _damaged(str(error)) from error
    return _checked(document)


def _checked(document: Mapping[str, object]) -> LastCompletion:
    if (document.get("format"), document.get("version")) != (FORMAT, VERSION):
        raise _damaged(f"its format is {shown(document.get('format'))}, version {shown(document.get('version'))}")
    model, folder, messages = document.get("model"), document.get("folder"), document.get("messages")
    template, system = document.get("template"), document.get("system")
    for value in (template, system):
        if value is not None and not isinstance(value, str):
            raise _damaged(f"its chat format or system prompt is {shown(value)}")
    if not isinstance(model, str) or not isinstance(folder, str) or "\0" in folder:
        raise _damaged("its model is no text")
    if not isinstance(messages, list) or not messages or not _are_texts(messages):
        raise _damaged("its messages are no texts")
    return LastCompletion(model, folder, template, system, messages)  # type: ignore[arg-type]  # checked above


def _are_texts(messages: Sequence[object]) -> bool:
    """Return whether all messages have a role and a text, and nothing else."""
    return all(
        isinstance(message, dict)
        and message.keys() == {"role", "content"}
        and message["role"] in ROLES
        and isinstance(message["content"], str)
        for message in messages
    )


def _damaged(what: str) -> SessionError:
    file = shown(str(_file()), limit=200)
    return SessionError(f"the last completion, {file}, is damaged: {what}; the next completion replaces it")


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a FIFO would make it wait


def _file() -> Path:
    return home() / NAME
