"""A constraint: the texts that an answer may be."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from llguidance import LLMatcher, LLParserLimits

from mistral_mlx.errors import OptionError, shown
from mistral_mlx.tokenizer.base import Tokenizer
from mistral_mlx.tokenizer.versions import TOOL_CALLS

from .calls import calls_grammar
from .grammar import gbnf_grammar, lark_grammar, regex_grammar
from .limits import LIMITS, SCHEMA_LIMITS, byte_tokenizer, in_time
from .schema import Schema, checked_schema, schema_grammar

T = TypeVar("T")

NAMES = {
    "schema": "the schema",
    "regex": "the regular expression",
    "grammar": "the grammar",
    "calls": "the format of tool calls",
}


@dataclass(frozen=True)
class Constraint:
    """The texts that an answer may be, made by one of the class methods, which raise OptionError."""

    kind: Literal["schema", "regex", "grammar", "calls"]
    grammar: str  # of llguidance
    schema: Schema | None = None
    begin: int | None = None  # the control token that the bound part begins with, if it begins with one
    waits: bool = False  # until the model itself writes it; else the whole answer is bound

    @property
    def name(self) -> str:
        """How messages call it."""
        return NAMES[self.kind]

    @property
    def limits(self) -> LLParserLimits:
        """How much work llguidance may do for it."""
        return SCHEMA_LIMITS if self.kind in ("schema", "calls") else LIMITS

    def bounded(self, work: Callable[[], T]) -> T:
        """Return what `work` returns, which asks llguidance. Raises OptionError if a user's grammar takes too long."""
        return in_time(work, self.name) if self.kind == "grammar" else work()

    @classmethod
    def from_schema(cls, schema: object) -> "Constraint":
        """The JSON texts that a JSON Schema allows, with the keys of each object in the schema's order."""
        return cls("schema", schema_grammar(schema), checked_schema(schema))

    @classmethod
    def from_regex(cls, pattern: str) -> "Constraint":
        """The texts that a regular expression matches as a whole."""
        _check_text(pattern, "regular expression")
        return cls("regex", regex_grammar(pattern))

    @classmethod
    def from_grammar(cls, text: str, *, gbnf: bool = False) -> "Constraint":
        """The texts of a grammar in Lark's notation, or in llama.cpp's with `gbnf`."""
        _check_text(text, "grammar")
        return cls("grammar", gbnf_grammar(text) if gbnf else lark_grammar(text))

    @classmethod
    def from_tools(
        cls,
        tools: Sequence[Mapping[str, object]],
        tokenizer: Tokenizer,
        version: str,
        *,
        name: str | None = None,
        waits: bool = False,
    ) -> "Constraint":
        """Calls of tools, or one call of the tool `name`; with `waits` from the first one that the model begins."""
        grammar = calls_grammar(tokenizer, version, tools, name)
        return cls("calls", grammar, begin=tokenizer.control[TOOL_CALLS], waits=waits)

    def meaning(self, text: str, *, cut: bool = False) -> object:
        """Return what a whole answer means: the value of its JSON, or the text itself.

        Raises OptionError if the text is not what the constraint says. One that was `cut` may be, and still not be what
        the model was about to write: then nothing may be able to follow it.
        """
        data = list(text.encode("utf-8", "replace"))
        matcher = LLMatcher(byte_tokenizer(), self.grammar, log_level=0, limits=self.limits)
        if not self.bounded(lambda: matcher.consume_tokens(data) and matcher.is_accepting()):
            raise OptionError(f"the answer does not fit {self.name}")
        if cut and not matcher.is_stopped():
            raise OptionError(f"the answer may not be whole, though it fits {self.name}")
        if self.kind != "schema":
            return text
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:  # such as an integer of more digits than Python reads
            raise OptionError(f"the answer cannot be read as JSON: {shown(str(error))}") from error


def _check_text(value: object, what: str) -> None:
    if not isinstance(value, str):
        raise OptionError(f"the {what} is {shown(value)}; give a text")
