"""Where the parts of a prompt come from: standard input, files, the command line, a prompt template."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mistral_mlx.cli.terminal.reading import STDIN, decode, read_file, read_stdin
from mistral_mlx.errors import OptionError, shown

from .prompt import Prompt
from .prompt_templates import UserTemplate

JOINED = "\n\n"  # between the parts of a prompt


@dataclass(frozen=True)
class Sources:
    """The sources that the options of ``complete`` name."""

    argument: str | None = None
    prompt_file: Path | None = None
    files: Sequence[Path] = ()
    fim_prefix: str | None = None
    fim_suffix: str | None = None
    messages: str | None = None  # a file
    template: UserTemplate | None = None
    variables: Mapping[str, str] = field(default_factory=dict)  # of the template
    quiet: bool = False  # whether nothing is said about standard input

    def prompts(self, frame: Prompt) -> tuple[Prompt, Prompt]:
        """Return `frame` with the texts of all sources, and the same as another call may ask it.

        Raises OptionError if there is no prompt, or sources exclude each other or cannot be read.
        """
        given = [] if self.messages is None else read_list(self.messages, "--messages")
        parts = self._parts()
        frame = replace(frame, suffix=(self.fim_suffix or "") if self._is_infill else None)
        asked = self._filled(replace(frame, text=joined(parts)).answering(given))
        other = self._filled(replace(frame, text=joined(other_parts(parts))).answering(other_messages(given)))
        if not asked.text and not self._is_infill and self.messages is None:
            raise OptionError("there is no prompt: give it as an argument, by --prompt-file, or on standard input")
        return asked, other

    @property
    def _is_infill(self) -> bool:
        return self.fim_prefix is not None or self.fim_suffix is not None

    def _parts(self) -> list[str]:
        takes_no_input = self.template is not None and not self.template.takes_input
        alone = not (self.argument or self.prompt_file or self.files or self.fim_prefix is not None or takes_no_input)
        if self.messages is not None:
            if not alone or self.template or self._is_infill:
                raise OptionError("--messages is the whole prompt; leave out the other, or --messages")
            return []
        parts = prompt_parts(self.argument, self.prompt_file, self.files, alone=alone, quiet=self.quiet)
        if self.fim_prefix is None:
            return parts
        if any(parts):
            raise OptionError("--fim-prefix is the prompt; leave out the other, or --fim-prefix")
        return ["", self.fim_prefix]

    def _filled(self, prompt: Prompt) -> Prompt:
        return prompt if self.template is None else self.template.filled(prompt, self.variables)


def prompt_parts(
    argument: str | None,
    prompt_file: Path | None = None,
    files: Sequence[Path] = (),
    *,
    alone: bool | None = None,
    quiet: bool = False,
) -> list[str]:
    """Return the texts of stdin, the named files, the prompt file and the argument; one that is not there is empty.

    One line feed at the end of the input or of a file is not part of the prompt; nothing else is changed. `alone` says
    that standard input is the only possible source; then a terminal is read, too.
    Raises OptionError if a source is not UTF-8 text.
    """
    if alone is None:
        alone = argument is None and prompt_file is None and not files
    parts = [_text(read_stdin(alone=alone, quiet=quiet), STDIN)]
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
