"""The system prompt that comes with a model, SYSTEM_PROMPT.txt, as the content of a message; never used unasked.

Its text may have the marks [THINK] and [/THINK] around the part that describes the reasoning. A model that has these
tokens reads that part as a chunk of thinking, as mistral-common's users write it. In any other text they stay text.
"""

import datetime
from pathlib import Path

from mistral_mlx.errors import ModelError, OptionError, shown
from mistral_mlx.files.folder import ModelFolder
from mistral_mlx.tokenizer.base import Tokenizer
from mistral_mlx.tokenizer.versions import BEGIN_THINK, END_THINK

from .encode import chat_format

NAME = "SYSTEM_PROMPT.txt"
MAX_BYTES = 64 * 1024  # the published ones have less than 8

OFFICIAL = "@model"  # where a user gives a system prompt: the official one

SystemContent = str | list[dict[str, object]]


def has_official_prompt(folder: ModelFolder) -> bool:
    """Return whether the model comes with a system prompt."""
    return folder.has(NAME)


def official_prompt(folder: ModelFolder, tokenizer: Tokenizer, *, template: str | None = None) -> SystemContent:
    """Return the system prompt of a model: a text, or chunks if it describes how to think.

    {name}, {today} and {yesterday} are filled in. Raises OptionError if there is none, ModelError if it is no text.
    """
    if not folder.has(NAME):
        raise OptionError(f"{shown(str(folder.path), limit=200)} has no {NAME}; give the text of a system prompt")
    text = folder.text(NAME, limit=MAX_BYTES).strip("\n")
    if not text.strip():
        raise ModelError(f"{NAME} is empty; download it again, or give the text of a system prompt")
    today = datetime.date.today()
    values = {"{name}": folder.path.resolve().name, "{today}": today, "{yesterday}": today - datetime.timedelta(days=1)}
    for place, value in values.items():
        text = text.replace(place, str(value))
    before, begin, rest = text.partition(BEGIN_THINK)
    thinking, end, after = rest.partition(END_THINK)
    if not (begin and end) or chat_format(tokenizer, template) != "v13":
        return text
    parts = [_text(before), {"type": "thinking", "thinking": thinking, "closed": True}, _text(after)]
    return [part for part in parts if part.get("text") != ""]


def system_of(text: str | None, path: Path, tokenizer: Tokenizer, template: str | None = None) -> SystemContent | None:
    """Return the system prompt that `text` means: itself, or for @model the one of the model in the folder `path`.

    Raises OptionError if the model comes with none.
    """
    return official_prompt(ModelFolder(path), tokenizer, template=template) if text == OFFICIAL else text


def spelled(content: SystemContent | None) -> str:
    """Return a system prompt as a text for people, with the marks of thinking."""
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(str(c["text"]) if "text" in c else f"{BEGIN_THINK}{c['thinking']}{END_THINK}" for c in content)


def _text(text: str) -> dict[str, object]:
    return {"type": "text", "text": text}
