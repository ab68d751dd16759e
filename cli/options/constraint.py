"""The options that say what an answer must be: a schema, a regular expression or a grammar."""

from pathlib import Path
from typing import Annotated

from .shared import constraint_option

Schema = Annotated[
    str | None,
    constraint_option(
        metavar="FILE|JSON|FIELDS",
        help="Answer with JSON: a JSON Schema, in a file or as text, or fields like 'name, age int'.",
    ),
]
SchemaMulti = Annotated[
    bool, constraint_option("--schema-multi", help="With --schema: answer with a list of such values, under 'items'.")
]
SchemaPrompt = Annotated[
    bool,
    constraint_option(
        "--schema-prompt/--no-schema-prompt", help="Tell the model the schema in the prompt, or only enforce it."
    ),
]
Regex = Annotated[
    str | None, constraint_option(metavar="REGEX", help="Answer with a text that matches REGEX as a whole.")
]
Grammar = Annotated[
    Path | None,
    constraint_option(metavar="FILE", help="Answer with a text of this grammar: Lark, or GBNF in a file *.gbnf."),
]
