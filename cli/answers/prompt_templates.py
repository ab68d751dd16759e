"""A user's own prompt templates: TOML files in the program's folder, and the commands that show and edit them."""

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mistral_mlx.cli.models.home import home
from mistral_mlx.cli.options.answer import AnswerKnobs, read_values
from mistral_mlx.errors import OptionError, shown

if TYPE_CHECKING:
    from .prompt import Prompt

INPUT = "input"  # the variable that is the prompt
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
VARIABLE = re.compile(r"\{\{(\w+)\}\}|\{([A-Za-z_]\w*)\}")  # {{name}} is the text {name}
TEXTS = ("description", "prompt", "system", "prefill")
FLAGS = ("extract", "raw")
SKELETON = """\
# Used as: mistral-mlx complete -t {name} "the input"
description = ""
system = "Answer in {{language}}."
prompt = '''
{{input}}
'''
# prefill = ""              what the answer begins with
# extract = true            only the first code block of the answer
# schema = "name, age int"  an answer in JSON, as --schema says it
# temperature = 0.2         and any other option of sampling, with _ for -
# max_tokens = 200
# stop = ["\\n\\n"]

[vars]                      # values that --var language=French replaces
language = "English"
"""


@dataclass(frozen=True)
class UserTemplate:
    """A prompt with places for variables, and the options that go with it."""

    name: str
    description: str = ""
    prompt: str = "{input}"
    system: str | None = None
    prefill: str = ""
    extract: bool = False
    raw: bool = False
    schema: object = None  # a text as of --schema, or a schema itself
    variables: Mapping[str, str] = field(default_factory=dict)  # their defaults
    options: Mapping[str, object] = field(default_factory=dict)  # as they are written

    @property
    def takes_input(self) -> bool:
        """Whether there is a place for the prompt."""
        return INPUT in self._names()

    def filled(self, prompt: "Prompt", variables: Mapping[str, str]) -> "Prompt":
        """Return `prompt` with its text in the template; what `prompt` says itself, it says in the template's stead.

        Raises OptionError for a variable without a value, and a value without a place.
        """
        self._check(variables, prompt.text)
        known = {**self.variables, **variables} | ({INPUT: prompt.text} if prompt.text else {})
        return replace(
            prompt,
            text=self._fill(self.prompt, known).removesuffix("\n"),
            system=self._fill(self.system or "", known) or None if prompt.system is None else prompt.system,
            prefill=prompt.prefill or self._fill(self.prefill, known).rstrip(" "),
            raw=prompt.raw or self.raw,
        )

    def _fill(self, text: str, known: Mapping[str, str]) -> str:
        """Replace the variables of `text`, once: what a value contains is left alone."""

        def value(match: re.Match[str]) -> str:
            literal, name = match.groups()
            if literal is not None:
                return f"{{{literal}}}"
            if name == INPUT and name not in known:
                raise OptionError(f"the template {self.name} needs input: give a prompt, or pipe it in")
            if name not in known:
                raise OptionError(f"the template {self.name} needs a value for {name}: add --var {name}=...")
            return known[name]

        return VARIABLE.sub(value, text)

    def _names(self) -> set[str]:
        return {
            m[2] for text in (self.prompt, self.system or "", self.prefill) for m in VARIABLE.finditer(text) if m[2]
        }

    def _check(self, variables: Mapping[str, str], text: str) -> None:
        places = self._names() - {INPUT}
        if unknown := sorted(variables.keys() - places):
            known = ", ".join(sorted(places)) or "none"
            raise OptionError(f"the template {self.name} has no variable {shown(unknown[0])} (it has: {known})")
        if text and not self.takes_input:
            raise OptionError(f"the template {self.name} has no place for a prompt: write {{input}} into it")


def parse_variables(pairs: Iterable[str]) -> dict[str, str]:
    """Return the values of ``NAME=VALUE`` pairs. Raises OptionError."""
    values = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.isidentifier() or name == INPUT:
            raise OptionError(f"--var is {shown(pair)}; give NAME=VALUE, and the input as the prompt")
        values[name] = value
    return values


def load_template(name: str) -> UserTemplate:
    """Return the template called `name`. Raises OptionError if it cannot be used."""
    path = path_of(name)
    try:
        return _parsed(name, tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise _missing(name) from None
    except OSError as error:
        raise OptionError(f"the template {shown(str(path), limit=200)} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise OptionError(f"the template {shown(str(path), limit=200)} is not TOML: {error}") from error


def names() -> list[str]:
    """Return the names of the templates, sorted."""
    return sorted(path.stem for path in _folder().glob("*.toml") if NAME.fullmatch(path.stem))


def description(name: str) -> str:
    """Return the description in a template on one line, or that the file cannot be read."""
    try:
        values = tomllib.loads(path_of(name).read_text(encoding="utf-8"))
    except (OSError, ValueError, OptionError):
        return "(cannot be read)"
    return " ".join(str(values.get("description", "")).split())


def edited(name: str, edit: Callable[[Path], None]) -> bool:
    """Have the file of a template edited, and return whether it is kept: an example that stays unchanged is not.

    Raises what `edit` raises; a new file is then not kept either.
    """
    path = path_of(name)
    example = None if path.exists() else SKELETON.format(name=name)
    if example is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(example, encoding="utf-8")
    is_kept = example is None
    try:
        edit(path)
        is_kept = is_kept or path.read_text(encoding="utf-8", errors="replace") != example
    finally:
        if not is_kept:
            path.unlink(missing_ok=True)
    return is_kept


def remove(name: str) -> Path:
    """Remove the file of a template, and return its path. Raises OptionError if there is none."""
    path = path_of(name)
    try:
        path.unlink()
    except FileNotFoundError:
        raise _missing(name) from None
    return path


def path_of(name: str) -> Path:
    """Return the path of a template; the file may not exist. Raises OptionError for an invalid name."""
    if not NAME.fullmatch(name):
        raise OptionError(f"a template is called {shown(name)}; use letters, digits, dots, _ and -")
    return _folder() / f"{name}.toml"


def _missing(name: str) -> OptionError:
    known = ", ".join(names()) or f"none yet; 'mistral-mlx templates edit {name}' makes one"
    return OptionError(f"there is no template {shown(name)} (there are: {known})")


def _parsed(name: str, values: dict[str, object]) -> UserTemplate:
    variables = values.pop("vars", {})
    if not isinstance(variables, dict) or not all(isinstance(value, str) for value in variables.values()):
        raise OptionError(f"[vars] of the template {name} must have a text for each name, in quotes")
    if INPUT in variables:
        raise OptionError(f"[vars] of the template {name} sets {INPUT}, which is the prompt")
    own: dict[str, object] = {key: values.pop(key) for key in (*TEXTS, *FLAGS) if key in values}
    for key, value in own.items():
        if not isinstance(value, bool if key in FLAGS else str):
            raise OptionError(f"{key} of the template {name} is {shown(value)}; give {_expected(key)}")
    schema = values.pop("schema", None)
    if not isinstance(schema, str | dict | None):
        raise OptionError(f"schema of the template {name} is {shown(schema)}; give a text or a table")
    read_values(AnswerKnobs, values, f"the template {name}", also=(*TEXTS, *FLAGS, "schema", "vars"))
    return UserTemplate(name, **own, schema=schema, variables=variables, options=values)  # type: ignore[arg-type]  # checked above


def _expected(key: str) -> str:
    return "true or false" if key in FLAGS else "a text in quotes"


def _folder() -> Path:
    return home() / "templates"
