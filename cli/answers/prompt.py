"""Joins a prompt from its sources, and encodes it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mistral_mlx.cli.terminal.reading import STDIN, decode, read_file, read_stdin
from mistral_mlx.errors import OptionError, shown
from mistral_mlx.prompt.encode import encode_chat
from mistral_mlx.prompt.infill import encode_infill
from mistral_mlx.tokenizer.choose import Tokenizer

JOINED = "\n\n"  # between the parts of a prompt


@dataclass(frozen=True)
class Prompt:
    """A prompt and how to encode it; with `suffix`, the texts before and after a gap."""

    text: str = ""
    system: str | None = None
    template: str | None = None  # the chat format
    raw: bool = False
    prefill: str = ""  # the beginning of the answer
    suffix: str | None = None
    messages: Sequence[Mapping[str, object]] = ()  # instead of a text

    def __post_init__(self) -> None:
        """Raise OptionError for values that exclude each other."""
        if self.raw and self.template:
            raise OptionError("--raw continues the text without a format; leave out --template, or --raw")
        if self.raw and self.messages:
            raise OptionError("--raw continues a text, and these are messages; leave out --raw")
        if self.prefill and self.raw:
            raise OptionError("--prefill begins an answer, and --raw has none; put the text at the end of the prompt")
        if self.suffix is not None and (self.system or self.template or self.prefill or self.messages):
            raise OptionError("filling in the middle takes no --system, --template, --prefill or messages")

    def continues(self, tokenizer: Tokenizer) -> bool:
        """Return whether the model continues the text as it is: by option, or without a chat format."""
        return self.raw or self.suffix is not None or not (self.template is not None or tokenizer.has_chat_format)

    def encode(self, tokenizer: Tokenizer) -> list[int]:
        """Return the ids. Raises OptionError or TokenizerError if the model has no suitable format."""
        if self.suffix is not None:
            return encode_infill(tokenizer, self.text, self.suffix)
        if self.continues(tokenizer):
            if self.system or self.prefill or self.messages:
                needy = "--system" if self.system else "--prefill" if self.prefill else "a list of messages"
                raise OptionError(f"{needy} needs a chat format; this prompt is continued as plain text")
            return tokenizer.encode(self.text, bos=tokenizer.add_bos)
        system = [{"role": "system", "content": self.system}] if self.system else []
        asked = self.messages or [{"role": "user", "content": self.text}]
        answer = [{"role": "assistant", "content": self.prefill}] if self.prefill else []
        return encode_chat(tokenizer, [*system, *asked, *answer], template=self.template)


def join_prompt(
    argument: str | None, prompt_file: Path | None = None, files: Sequence[Path] = (), *, alone: bool | None = None
) -> str:
    """Return stdin, the named files, the prompt file and the argument, blank lines between.

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
    return JOINED.join(part for part in [*parts, argument or ""] if part)


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
