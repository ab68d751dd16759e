"""JSON Schemas as grammars: what can be guaranteed is taken, everything else is refused by name."""

import json
from collections.abc import Mapping
from functools import lru_cache

from llguidance import LLMatcher

from mistral_mlx.errors import OptionError, shown

from .json_schema.circles import check_circles
from .json_schema.document import Document
from .json_schema.emission import Emission
from .json_schema.keywords import CONSTRAINING
from .json_schema.meaning import Reader
from .json_schema.values import Value, plain
from .limits import SCHEMA_LIMITS, check_grammar, check_texts

# Between the marks of a JSON text: nothing, one blank, or a line feed with its indentation.
WHITESPACE = r"(?:[ \t]|\r?\n[ \t]{0,32})?"

NAMED = {"name", "description", "strict", "schema"}
# Words of which a schema has one at least; others may be anything.
WORDS = CONSTRAINING | set(
    "$schema $id $ref $defs $comment $anchor $dynamicRef $recursiveRef definitions title description default examples "
    "allOf anyOf oneOf not if then else dependencies dependentRequired dependentSchemas unevaluatedProperties "
    "unevaluatedItems nullable minContains maxContains contentMediaType contentEncoding contentSchema "
    "deprecated readOnly writeOnly $vocabulary x-guidance".split()
)

Schema = Mapping[str, object] | bool


def checked_schema(schema: object) -> Schema:
    """Return `schema` as plain JSON values. Raises OptionError for one whose answers cannot be guaranteed."""
    value = _plain(schema)
    _grammar(json.dumps(value))
    return value


def schema_grammar(schema: object) -> str:
    """Return the grammar of all JSON texts that `schema` allows. Raises OptionError."""
    return _grammar(json.dumps(_plain(schema)))


def _plain(schema: object) -> dict[str, Value] | bool:
    value = _unwrapped(plain(schema))
    if not isinstance(value, dict | bool):
        raise OptionError(f"the schema is {shown(schema)}; give a JSON Schema, which is an object")
    if isinstance(value, dict) and value and not value.keys() & WORDS:
        raise OptionError(
            f"the schema has no word of JSON Schema (it has {shown(', '.join(value), limit=80)}); "
            'write, for example, {"type": "object", "properties": {"name": {"type": "string"}}}'
        )
    return value


def _unwrapped(value: Value) -> Value:
    """Return the schema in what OpenAI's interface takes: a named schema, or a format of the response."""
    if isinstance(value, dict) and isinstance(value.get("json_schema"), dict):
        value = value["json_schema"]
    is_named = isinstance(value, dict) and isinstance(value.get("schema"), dict) and value.keys() <= NAMED
    return value["schema"] if isinstance(value, dict) and is_named else value


@lru_cache(maxsize=4)
def _grammar(text: str) -> str:
    document = Document(json.loads(text))
    check_circles(document)
    grammar = LLMatcher.grammar_from_lark(Emission(Reader(document), WHITESPACE).grammar((document.root,)))
    check_grammar(grammar, "the schema", SCHEMA_LIMITS)
    check_texts(grammar, "the schema", SCHEMA_LIMITS)
    return grammar
