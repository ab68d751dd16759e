"""Joins a prompt from its sources, and encodes it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mistral_mlx.cli.terminal.reading import STDIN, decode, read_file, read_stdin
from mistral_mlx.errors import OptionError, shown
from mistral_mlx.prompt.calls import read_calls
from mistral_mlx.prompt.encode import chat_format, encode_chat
from mistral_mlx.prompt.infill import encode_infill
from mistral_mlx.prompt.official import SystemContent
from mistral_mlx.tokenizer.choose import Tokenizer

JOINED = "\n\n"  # between the parts of a prompt


@dataclass(frozen=True)
class Prompt:
    """A prompt and how to encode it; with `suffix`, the texts before and after a gap."""

    text: str = ""
    system: SystemContent | None = None
    template: str | None = None  # the chat format
    raw: bool = False
    prefill: str = ""  # the beginning of the answer
    suffix: str | None = None
    messages: Sequence[Mapping[str, object]] = ()  # instead of a text
    tools: Sequence[Mapping[str, object]] = ()
    reasoning_effort: str | None = None

    def __post_init__(self) -> None:
        """Raise OptionError for values that exclude each other."""
        if self.raw and self.template:
            raise OptionError("--raw continues the text without a format; leave out --template, or --raw")
        if self.raw and self.messages:
            raise OptionError("--raw continues a text, and these are messages; leave out --raw")
        if self.prefill and self.raw:
            raise OptionError("--prefill begins an answer, and --raw has none; put the text at the end of the prompt")
        if self.suffix is not None and (self.system or self.template or self.prefill or self.messages or self.tools):
            raise OptionError("filling in the middle takes no --system, --template, --prefill, --tools or messages")

    def answering(self, messages: Sequence[Mapping[str, object]]) -> "Prompt":
        """Return this prompt with `messages`; a text of the model at their end is the beginning of the answer."""
        last = messages[-1] if messages else None
        is_begun = isinstance(last, dict) and last.get("role") == "assistant" and isinstance(last.get("content"), str)
        if not isinstance(last, dict) or not is_begun or any(last.get(key) for key in ("tool_calls", "reasoning")):
            return replace(self, messages=messages)
        return replace(self, messages=messages[:-1], prefill=(last["content"] + self.prefill).rstrip(" "))

    def continues(self, tokenizer: Tokenizer) -> bool:
        """Return whether the model continues the text as it is: by option, or without a chat format."""
        return self.raw or self.suffix is not None or not (self.template is not None or tokenizer.has_chat_format)

    def encode(self, tokenizer: Tokenizer) -> list[int]:
        """Return the ids. Raises OptionError or TokenizerError if the model has no suitable format."""
        if self.suffix is not None:
            return encode_infill(tokenizer, self.text, self.suffix)
        if self.continues(tokenizer):
            needs = {
                "--system": self.system,
                "--prefill": self.prefill,
                "--tools": self.tools,
                "--reasoning-effort": self.reasoning_effort,
                "a list of messages": self.messages,
            }
            for needy in (name for name, value in needs.items() if value):
                raise OptionError(f"{needy} needs a chat format; this prompt is continued as plain text")
            return tokenizer.encode(self.text, bos=tokenizer.add_bos)
        system = [{"role": "system", "content": self.system}] if self.system else []
        asked = self.messages or [{"role": "user", "content": self.text}]
        answer = [{"role": "assistant", "content": self.prefill}] if self.prefill else []
        return encode_chat(
            tokenizer,
            [*system, *asked, *answer],
            template=self.template,
            tools=self.tools,
            reasoning_effort=self.reasoning_effort,
        )

    def calls_in(self, tokenizer: Tokenizer, ids: Sequence[int]) -> list[dict[str, object]] | None:
        """Return the tool calls in the ids of an answer, as JSON has them; None if there are none that can be read."""
        version = chat_format(tokenizer, self.template) if self.tools else None
        calls = None if version is None else read_calls(tokenizer, version, ids)
        return [{"id": c.id, "name": c.name, "arguments": c.arguments} for c in calls] if calls else None


def prompt_parts(
    argument: str | None, prompt_file: Path | None = None, files: Sequence[Path] = (), *, alone: bool | None = None
) -> list[str]:
    """Return the texts of stdin, the named files, the prompt file and the argument; one that is not there is empty.

    One line feed at the end of the input or of a file is not part of the prompt; nothing else is changed. `alone` says
    that standard input is the only possible source; then a terminal is read, too.
    Raises OptionError if a source is not UTF-8 text.
    """
    if alone is None:
        alone = argument is None and prompt_file is None and not files
    parts = [_text(read_stdin(alone=alone), STDIN)]
    parts += [f"--- File: {path.name} ---\n{_text(read_file(path, 'file'), str(path))}" for path in files]
    if prompt_file is not None and str(prompt_file) != "-":  # standard input is read anyway
        parts.append(_text(read_file(prompt_file, "prompt file"), str(prompt_file)))
    return [*parts, argument or ""]


def other_parts(parts: Sequence[str]) -> list[str]:
    """Return the parts of a prompt with other texts from that place on which changes from call to call.

    It is standard input, which comes first, or without one the last part.
    """
    places = [place for place, part in enumerate(parts) if part]
    if not places:
        return list(parts)
    changed = 0 if places[0] == 0 else places[-1]
    return [*parts[:changed], another(parts[changed])]


def joined(parts: Sequence[str]) -> str:
    """Return the parts that are not empty, with a blank line between them."""
    return JOINED.join(part for part in parts if part)


def other_messages(messages: Sequence[Mapping[str, object]]) -> list[Mapping[str, object]]:
    """Return messages with another text in the last one of the user; they need not be valid."""
    places = [i for i, message in enumerate(messages) if isinstance(message, dict) and message.get("role") == "user"]
    others = list(messages)
    for place in places[-1:]:
        others[place] = {**others[place], "content": another(str(others[place].get("content")))}
    return others


def another(text: str) -> str:
    """Return a short text that begins with another character."""
    return "1" if text.startswith("0") else "0"


def read_list(source: str, option: str) -> list[Any]:
    """Return the JSON list in the file `source` (``-`` is stdin) of an option. Raises OptionError if it is none."""
    try:
        value = json.loads(read_text(source, f"file of {option}"))
    except (ValueError, RecursionError) as error:
        raise OptionError(f"{shown(source, limit=200)} ({option}) is not JSON: {shown(str(error))}") from error
    if not isinstance(value, list) or not value:
        raise OptionError(f"{shown(source, limit=200)} ({option}) is {shown(value)}; a list in JSON is expected")
    return value


def read_text(source: str, what: str) -> str:
    """Return the text of the file `source` (``-`` is stdin), without the line feed at its end.

    Raises OptionError if it is not UTF-8 text, or empty.
    """
    name = STDIN if source == "-" else source
    text = _text(read_stdin() if source == "-" else read_file(Path(source), what), name)
    if not text:
        raise OptionError(f"there is no text in {shown(name, limit=200)}")
    return text


def _text(data: bytes, source: str) -> str:
    return decode(data, source).removesuffix("\n")
