"""From what a user gives, on the command line, in a template, a batch line or a chat, to a constraint of the answer."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mistral_mlx.cli.terminal.reading import decode, read_file
from mistral_mlx.errors import OptionError, shown

if TYPE_CHECKING:
    from mistral_mlx.constraint.constraint import Constraint

GBNF = ".gbnf"


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

    path = Path(text) if _may_be_a_name(text) else None
    if path is None or not (path.is_file() or path.suffix == ".json"):
        return schema_of(text)
    content = decode(read_file(path, "schema"), text)
    try:
        return schema_of(content)
    except OptionError as error:
        raise OptionError(f"{shown(text, limit=200)}: {error}") from error


def _may_be_a_name(text: str) -> bool:
    return len(text) < 4096 and not text.lstrip().startswith("{") and "\n" not in text and "\0" not in text
