"""JSON Schemas as grammars: what can be guaranteed is taken, everything else is refused by name."""

import json
from collections.abc import Mapping

from llguidance import LLMatcher

from mistral_mlx.errors import OptionError, shown

from .limits import check_grammar

# Between the marks of a JSON text: nothing, one blank, or a line feed with its indentation.
WHITESPACE = r"(?:[ \t]|\r?\n[ \t]{0,32})?"

Schema = Mapping[str, object] | bool


def checked_schema(schema: object) -> Schema:
    """Return `schema` as plain JSON values. Raises OptionError for one whose answers cannot be guaranteed."""
    if not isinstance(schema, Mapping | bool):
        raise OptionError(f"the schema is {shown(schema)}; give a JSON Schema, which is an object")
    return schema


def schema_grammar(schema: object) -> str:
    """Return the grammar of all JSON texts that `schema` allows. Raises OptionError."""
    text = json.dumps(checked_schema(schema), ensure_ascii=False)
    grammar = LLMatcher.grammar_from_json_schema(text, overrides={"whitespace_pattern": WHITESPACE})
    check_grammar(grammar, "the schema")
    return grammar
