"""What a model has said so far: its text, its reasoning, and the tools that it calls."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mistral_mlx.generation.response import GenerationResponse
from mistral_mlx.tokenizer.choose import Tokenizer
from mistral_mlx.tokenizer.versions import TOOL_CALLS

from .prompt import Prompt


@dataclass
class Said:
    """The parts of an answer. `text` has its prefill; `calls` is None unless tools were offered."""

    text: str = ""
    reasoning: str = ""
    calls: Sequence[Mapping[str, object]] | None = None
    tokens: list[int] = field(default_factory=list)

    def add(self, response: GenerationResponse) -> None:
        """Take up a response."""
        self.text += response.text
        self.reasoning += response.reasoning
        self.tokens.append(response.token)

    def end(self, prompt: Prompt, tokenizer: Tokenizer) -> str:
        """Read the calls, if tools were offered. Return the text of those that cannot be read, which is not added."""
        if not prompt.tools:
            return ""
        self.calls = prompt.calls_in(tokenizer, self.tokens) or []
        begin = tokenizer.control.get(TOOL_CALLS)
        if self.calls or begin not in self.tokens:
            return ""
        return tokenizer.decode(self.tokens[self.tokens.index(begin) :])

    def more(self) -> dict[str, object]:
        """Return what JSON has beside the text: reasoning, if there is any, and calls, if tools were offered."""
        reasoning = {"reasoning": self.reasoning} if self.reasoning else {}
        return {**reasoning, **({} if self.calls is None else {"tool_calls": self.calls})}
