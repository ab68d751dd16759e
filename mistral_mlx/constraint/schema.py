"""JSON Schemas as grammars: what can be guaranteed is taken, everything else is refused by name."""

from collections.abc import Mapping

from llguidance import LLMatcher

from mistral_mlx.errors import OptionError, shown

from .json_schema.document import Document
from .json_schema.emission import Emission
from .json_schema.meaning import Reader
from .json_schema.values import plain
from .limits import check_grammar

# Between the marks of a JSON text: nothing, one blank, or a line feed with its indentation.
WHITESPACE = r"(?:[ \t]|\r?\n[ \t]{0,32})?"

Schema = Mapping[str, object] | bool


def checked_schema(schema: object) -> Schema:
    """Return `schema` as plain JSON values. Raises OptionError for one whose answers cannot be guaranteed."""
    value = _plain(schema)
    _grammar(value)
    return value


def schema_grammar(schema: object) -> str:
    """Return the grammar of all JSON texts that `schema` allows. Raises OptionError."""
    grammar = LLMatcher.grammar_from_lark(_grammar(_plain(schema)))
    check_grammar(grammar, "the schema")
    return grammar


def _plain(schema: object) -> Schema:
    value = plain(schema)
    if not isinstance(value, dict | bool):
        raise OptionError(f"the schema is {shown(schema)}; give a JSON Schema, which is an object")
    return value


def _grammar(schema: Schema) -> str:
    document = Document(plain(schema))
    return Emission(Reader(document), WHITESPACE).grammar((document.root,))
