"""What a model has said so far: its text, its reasoning, and the tools that it calls."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mistral_mlx.errors import OptionError
from mistral_mlx.generation.response import GenerationResponse
from mistral_mlx.tokenizer.choose import Tokenizer
from mistral_mlx.tokenizer.versions import TOOL_CALLS

from .prompt import Prompt

if TYPE_CHECKING:
    from mistral_mlx.constraint.constraint import Constraint


CUTS = {  # why an answer is not whole
    "length": "it was cut short, give it more --max-tokens",
    "context": "the model's context was full",
    "stop": "a stop string ended it",
}


@dataclass
class Said:
    """The parts of an answer. `text` has its prefill; `calls` is None unless tools were offered.

    `parsed` is what an answer with a schema means, and `fault` why an answer does not fit its constraint, or a call the
    form of its tool.
    """

    constraint: "Constraint | None" = None
    text: str = ""
    reasoning: str = ""
    calls: Sequence[Mapping[str, object]] | None = None
    parsed: object = None
    fault: str | None = None
    tokens: list[int] = field(default_factory=list)

    def add(self, response: GenerationResponse) -> None:
        """Take up a response."""
        self.text += response.text
        self.reasoning += response.reasoning
        self.tokens.append(response.token)

    def end(self, prompt: Prompt, tokenizer: Tokenizer) -> str:
        """Read the calls, if tools were offered. Return the text of those that were cut off, which is not added."""
        if not prompt.tools:
            return ""
        self.calls = prompt.calls_in(tokenizer, self.tokens) or []
        begin = tokenizer.control.get(TOOL_CALLS)
        if not self.calls and begin in self.tokens:
            self.fault = "the answer has a call of a tool that is not whole"
            return tokenizer.decode(self.tokens[self.tokens.index(begin) :])
        if not self.calls and prompt.tool_choice.mode == "required":
            self.fault = "the answer calls no tool"
        return ""

    def judge(self, reason: str | None, stop: Sequence[str], tokenizer: Tokenizer) -> None:
        """Compare the text, to which no more is added, with the constraint; `reason` is why it ended."""
        if self.constraint is None:
            return
        by_string = bool(stop and self.tokens) and self.tokens[-1] not in tokenizer.eos_ids
        try:
            self.parsed = self.constraint.meaning(self.text, cut=by_string or reason != "stop")
        except OptionError as error:
            self.fault = str(error)

    def results(self) -> dict[str, object]:
        """Return what JSON has as the results of an answer: its calls, or what it means, if that was asked for."""
        has_meaning = self.constraint is not None and self.constraint.schema is not None
        calls = {} if self.calls is None else {"tool_calls": self.calls}
        return {**calls, **({"parsed": self.parsed} if has_meaning else {})}

    def more(self) -> dict[str, object]:
        """Return what JSON has beside the text: reasoning, if there is any, and the results."""
        return {**({"reasoning": self.reasoning} if self.reasoning else {}), **self.results()}
