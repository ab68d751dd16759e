"""From what a user gives, on the command line, in a template, a batch line or a chat, to a constraint of the answer."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mistral_mlx.cli.terminal.reading import decode, read_file
from mistral_mlx.errors import OptionError, shown

if TYPE_CHECKING:
    from mistral_mlx.constraint.constraint import Constraint

GBNF = ".gbnf"
MAX_PATH = 4096


@dataclass(frozen=True)
class Wanted:
    """What an answer must be, as options say it; `schema` is a text, or the schema itself from JSON or TOML."""

    schema: object = None
    multi: bool = False
    regex: str | None = None
    grammar: Path | None = None

    def __post_init__(self) -> None:
        """Raise OptionError for options that exclude each other."""
        values = {"--schema": self.schema, "--regex": self.regex, "--grammar": self.grammar}
        given = [name for name, value in values.items() if value is not None]
        if len(given) > 1:
            raise OptionError(f"{' and '.join(given)} exclude each other; give one")
        if self.multi and self.schema is None:
            raise OptionError("--schema-multi needs --schema, the schema of one value")

    def over(self, schema: object) -> "Wanted":
        """Return this, or if nothing is wanted here the `schema` of a template."""
        return Wanted(schema) if self == Wanted() else self

    def constraint(self) -> "Constraint | None":
        """Return the constraint, None if there is none. Raises OptionError if it cannot be one."""
        if self == Wanted():
            return None  # and imports nothing
        from mistral_mlx.constraint.constraint import Constraint
        from mistral_mlx.constraint.short_form import several

        if self.schema is not None:
            schema = read_schema(self.schema) if isinstance(self.schema, str) else self.schema
            return Constraint.from_schema(several(schema) if self.multi else schema)
        if self.regex is not None:
            return Constraint.from_regex(self.regex)
        assert self.grammar is not None
        text = decode(read_file(self.grammar, "grammar"), str(self.grammar))
        return Constraint.from_grammar(text, gbnf=self.grammar.suffix == GBNF)


def read_schema(text: str) -> object:
    """Return the schema that `text` is, or that is in the file of this name. Raises OptionError."""
    from mistral_mlx.constraint.short_form import schema_of

    if not _names_a_file(text):
        return schema_of(text)
    path = Path(text)
    content = decode(read_file(path, "schema"), text)
    if not content.strip():
        raise OptionError(f"{shown(text, limit=200)} is empty; write a JSON Schema into it")
    try:
        return schema_of(content)
    except OptionError as error:
        raise OptionError(f"{shown(text, limit=200)}: {error}") from error


def _names_a_file(text: str) -> bool:
    """Whether a text is the path of a file, which may be missing: no field is called so."""
    if len(text) > MAX_PATH or text.lstrip().startswith(("{", "[")) or set(text) & set("\n\0,:"):
        return False
    return os.path.exists(text) or bool(set(text) & set("/\\.")) or text == "-"
