"""A prompt, and how it becomes ids."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mistral_mlx.errors import OptionError
from mistral_mlx.prompt.calls import read_calls
from mistral_mlx.prompt.encode import chat_format, encode_chat
from mistral_mlx.prompt.infill import encode_infill
from mistral_mlx.prompt.official import SystemContent
from mistral_mlx.tokenizer.choose import Tokenizer
from mistral_mlx.tokenizer.versions import TOOL_CALLS

from .tool_choice import AUTO, ToolChoice

if TYPE_CHECKING:
    from mistral_mlx.constraint.constraint import Constraint


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
    tool_choice: ToolChoice = AUTO
    reasoning_effort: str | None = None
    schema: Mapping[str, object] | bool | None = None  # of the answer, to tell the model

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
            schema=self.schema,
        )

    def binding(self, tokenizer: Tokenizer) -> "Constraint | None":
        """Return what binds the calls of the answer; None if none can be. Raises OptionError for tools that cannot."""
        choice = self.tool_choice
        version = chat_format(tokenizer, self.template) if self.tools and choice.mode != "none" else None
        if version is None:
            return None
        from mistral_mlx.constraint.constraint import Constraint

        waits = choice.mode == "auto"
        return Constraint.from_tools(self.tools, tokenizer, version, name=choice.name, waits=waits)

    def banned(self, tokenizer: Tokenizer) -> list[int]:
        """Return the ids that the answer must not have."""
        call = tokenizer.control.get(TOOL_CALLS)
        return [] if call is None or self.tool_choice.mode != "none" else [call]

    def calls_in(self, tokenizer: Tokenizer, ids: Sequence[int]) -> list[dict[str, object]] | None:
        """Return the tool calls in the ids of an answer, as JSON has them; None if there are none that can be read."""
        version = chat_format(tokenizer, self.template) if self.tools else None
        calls = None if version is None else read_calls(tokenizer, version, ids)
        return [{"id": c.id, "name": c.name, "arguments": c.arguments} for c in calls] if calls else None
