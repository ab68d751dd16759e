"""A constraint: the texts that an answer may be."""

import json
from dataclasses import dataclass
from typing import Literal

from mistral_mlx.errors import OptionError

from .grammar import gbnf_grammar, lark_grammar, regex_grammar
from .schema import Schema, checked_schema, schema_grammar

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
    after: int | None = None  # the control token that begins the bound part; None: the whole answer is bound

    @property
    def name(self) -> str:
        """How messages call it."""
        return NAMES[self.kind]

    @classmethod
    def from_schema(cls, schema: object) -> "Constraint":
        """The JSON texts that a JSON Schema allows, with the keys of each object in the schema's order."""
        return cls("schema", schema_grammar(schema), checked_schema(schema))

    @classmethod
    def from_regex(cls, pattern: str) -> "Constraint":
        """The texts that a regular expression matches as a whole."""
        return cls("regex", regex_grammar(pattern))

    @classmethod
    def from_grammar(cls, text: str, *, gbnf: bool = False) -> "Constraint":
        """The texts of a grammar in Lark's notation, or in llama.cpp's with `gbnf`."""
        return cls("grammar", gbnf_grammar(text) if gbnf else lark_grammar(text))

    def meaning(self, text: str) -> object:
        """Return what a whole answer means: the value of its JSON, or the text itself. Raises OptionError."""
        if self.kind != "schema":
            return text
        try:
            return json.loads(text)
        except ValueError as error:
            raise OptionError(f"the answer is no JSON: {error}") from error
