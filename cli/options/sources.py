"""What a user can set without the command line: options, and their names in the environment and the config file.

The parser itself looks the values up: a variable is the `envvar` of its option, and the values of the file become the
`default_map` of a command; see `help.Command`.
"""

import difflib
import math
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from mistral_mlx.cli.models.home import HOME_VARIABLE, home
from mistral_mlx.distributed.launched import JOIN_VARIABLE
from mistral_mlx.errors import shown

from .other_programs import our_spelling
from .values import kinds_of

PREFIX = "MISTRAL_MLX_"
# Variables that are read elsewhere.
NO_OPTIONS = (HOME_VARIABLE, "MISTRAL_MLX_KERNELS", "MISTRAL_MLX_COPY_WEIGHTS", JOIN_VARIABLE, "MISTRAL_MLX_DEBUG")
REPLACED = {"force": "ignore_memory"}  # keys of earlier versions
ALLOWED = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", Path: "a path, as a text"}

MAX_LISTED = 30  # names in a message
SWITCHES = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off"), False),
}
CHOICE = re.compile(r"[a-z0-9-]+")  # what is to be replaced is written in capitals: NAME


@dataclass(frozen=True)
class Option:
    """An option of a command: the parser's own, and the type of its value (of one, if it may be repeated)."""

    parameter: Any
    kind: type

    @property
    def name(self) -> str:
        """The name of the command's parameter."""
        return str(self.parameter.name)

    @property
    def flags(self) -> list[str]:
        """Its long names on the command line."""
        return [flag for flag in self.parameter.opts if flag.startswith("--")]

    @property
    def key(self) -> str:
        """Its name in the config file."""
        return key_of(self.flags[0])

    @property
    def keys(self) -> set[str]:
        """All names that the config file may use."""
        return {key_of(flag) for flag in self.flags}

    @property
    def variable(self) -> str:
        """Its name in the environment."""
        return PREFIX + self.key.upper()

    @property
    def is_path(self) -> bool:
        """Whether it takes paths."""
        return self.kind is Path

    @property
    def settable(self) -> bool:
        """Whether anything but the command line may give its value."""
        return bool(self.parameter.allow_from_autoenv)

    @property
    def default(self) -> object:
        """Its value where nothing gives one."""
        return bool(self.parameter.default) if self.kind is bool else self.parameter.default

    @property
    def choices(self) -> list[str]:
        """The values it takes, if they are few; they stand in its help."""
        choices = str(self.parameter.metavar).split("|")
        return choices if len(choices) > 1 and all(CHOICE.fullmatch(choice) for choice in choices) else []

    @property
    def allowed(self) -> str:
        """The values it takes, in words."""
        if self.choices:
            return f"{', '.join(self.choices[:-1])} or {self.choices[-1]}"
        return ALLOWED[self.kind] + (", or a list of them" if self.parameter.multiple else "")

    def typed(self, texts: list[str]) -> object:
        """Return what a user writes, one text or for an option that may be repeated several, as a value.

        Raises ValueError or KeyError if it is none.
        """
        values = [self._typed(text) for text in texts]
        if len(values) != 1 and not self.parameter.multiple:
            raise ValueError
        return values[0] if len(values) == 1 else values

    def _typed(self, text: str) -> object:
        if self.kind is bool:
            return SWITCHES[text.lower()]
        if self.choices and text not in self.choices:
            raise ValueError
        value = text if self.kind is Path else self.kind(text)
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError
        return value

    def bind_variable(self) -> None:
        """Make the parser look the value up in the variable, where several values are on a line each."""
        self.parameter.show_envvar = False  # in the help, which would name all of them
        if self.settable:
            self.parameter.envvar = self.variable
        if self.parameter.multiple:  # typer would split at spaces
            self.parameter.value_from_envvar = self._lines

    def _lines(self, context: Any) -> list[str] | None:
        text = self.parameter.resolve_envvar_value(context)
        return text.split("\n") if text else None

    def fits(self, value: object) -> bool:
        """Whether a value of the config file has the right type."""
        if self.parameter.multiple and isinstance(value, list):
            return all(_is(self.kind, item) for item in value)
        return _is(self.kind, value)


@dataclass(frozen=True)
class Setting:
    """The value of an option where the command line gives none, and its origin."""

    option: Option
    value: object
    source: str  # "environment", "config file" or "default"
    where: str | None  # the variable, or the key with its table


def config_path() -> Path:
    """Return the path of the config file, which need not exist."""
    folder = home() if os.environ.get(HOME_VARIABLE) else Path(platformdirs.user_config_dir("mistral-mlx"))
    return folder / "config.toml"


def options_of(command: Any) -> Iterator[Option]:
    """Yield the options of a command that typer has built."""
    for parameter, kind in kinds_of(command):
        if parameter.param_type_name == "option":
            yield Option(parameter, kind)


def unknown_variables(known: Iterable[Option]) -> str:
    """Return a remark on the variables that begin like ours and have no effect; empty if there are none."""
    options = {option.variable: option for option in known}
    settable = [name for name, option in options.items() if option.settable]
    remarks = []
    for name in sorted(os.environ):
        if not name.startswith(PREFIX) or name in settable or name in NO_OPTIONS:
            continue
        if name in options:
            remarks.append(f"{name} has no effect; give {options[name].flags[0]} on the command line")
        else:
            key = name.removeprefix(PREFIX).lower()
            like = [REPLACED[key]] if key in REPLACED else _like(key, [option.key for option in options.values()])
            hint = f"; did you mean {' or '.join(PREFIX + key.upper() for key in like)}?" if like else ""
            remarks.append(f"{shown(name)} has no effect{hint}")
    return "; ".join(remarks)


def near(name: str, known: Iterable[str], *, else_all: bool = True) -> str:
    """Return the end of a message about an unknown name: the known ones that are like it, or all of them or nothing."""
    known = sorted(set(known))
    like = _like(name, known)
    if like or not else_all:
        return f"; did you mean {' or '.join(like)}?" if like else ""
    is_short = len(known) <= MAX_LISTED
    return f"; there are {', '.join(known)}" if is_short else "; 'mistral-mlx config --all' lists the options"


def _like(name: str, known: Iterable[str]) -> list[str]:
    """Return the known name that is most like `name`, and those that are nearly as like it."""
    known = list(known)
    ours = key_of(our_spelling(name))
    if ours != name and ours in known:
        return [ours]
    for best in difflib.get_close_matches(name, known, n=1):
        likeness = difflib.SequenceMatcher(None, best, name).ratio()
        return difflib.get_close_matches(name, known, n=3, cutoff=likeness - 0.1)
    return []


def _is(kind: type, value: object) -> bool:
    if isinstance(value, bool) or kind is bool:
        return kind is bool and isinstance(value, bool)
    return isinstance(value, (int, float) if kind is float else int if kind is int else str)


def key_of(flag: str) -> str:
    """Return the key of an option in the config file."""
    return flag.removeprefix("--").replace("-", "_")
