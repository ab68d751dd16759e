"""Where the value of an option comes from: command line, environment, config file, default, in this order.

Options are read off the commands themselves; the command line is the parser's business, and what is found here is
what the parser takes for the defaults. Knows no command by name.
"""

import difflib
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import platformdirs

from mistral_mlx.cli.models.registry import HOME_VARIABLE, home
from mistral_mlx.errors import OptionError, shown

PREFIX = "MISTRAL_MLX_"
ALLOWED = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", Path: "a path, as a text"}
YES, NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


@dataclass(frozen=True)
class Option:
    """An option of a command, and what its value must be."""

    name: str  # of the parameter
    flags: tuple[str, ...]
    kind: type
    multiple: bool
    default: object
    help: str

    @property
    def key(self) -> str:
        """Its name in the config file."""
        return _key(self.flags[0])

    @property
    def keys(self) -> set[str]:
        """The same with its other names."""
        return {_key(flag) for flag in self.flags}

    @property
    def variable(self) -> str:
        """Its name in the environment."""
        return PREFIX + self.key.upper()

    @property
    def allowed(self) -> str:
        """What the value must be, in words."""
        return ALLOWED[self.kind] + (", or a list of them" if self.multiple else "")


@dataclass(frozen=True)
class Setting:
    """The value of an option and where it comes from."""

    option: Option
    value: object
    source: str  # "environment", "config file" or "default"
    where: str | None  # the variable, or the key with its table


def config_path() -> Path:
    """Return the config file, which need not be there."""
    folder = home() if os.environ.get(HOME_VARIABLE) else Path(platformdirs.user_config_dir("mistral-mlx"))
    return folder / "config.toml"


def options_of(program: Any) -> dict[str, list[Option]]:
    """Return the options of every command of a program that typer has built."""
    return {name: list(_options(command)) for name, command in program.commands.items() if not command.hidden}


def read_config(path: Path, known: Mapping[str, list[Option]]) -> dict[str, dict[str, object]]:
    """Return the tables of the config file, ``""`` being what stands above the first; nothing if there is no file.

    Raises OptionError, with file, key and value, for what is no option or not of its type.
    """
    tables: dict[str, dict[str, object]] = {"": {}}
    for key, value in _parsed(path).items():
        if isinstance(value, dict) and key in known:
            tables[key] = {_key(k): _checked(path, f"{key}.{k}", k, v, known[key]) for k, v in value.items()}
        elif isinstance(value, dict):
            raise OptionError(f"{shown(str(path), limit=200)}: there is no command {shown(key)}{_near(key, [*known])}")
        else:
            everything = [option for options in known.values() for option in options]
            tables[""][_key(key)] = _checked(path, key, key, value, everything)
    return tables


def settings(command: str, options: list[Option], tables: Mapping[str, Mapping[str, object]]) -> Iterator[Setting]:
    """Yield what each of the command's options is where the command line does not say. Raises OptionError."""
    for option in options:
        if text := os.environ.get(option.variable):
            yield Setting(option, _from_environment(option, text), "environment", option.variable)
            continue
        for table in (command, ""):
            found = option.keys & tables.get(table, {}).keys()
            value = tables[table][min(found)] if found else None
            if found and (table or _fits(option, value)):
                listed = [value] if option.multiple and not isinstance(value, list) else value
                yield Setting(option, listed, "config file", f"{table}.{min(found)}".lstrip("."))
                break
        else:
            yield Setting(option, option.default, "default", None)


def defaults(program: Any, command: str) -> dict[str, object]:
    """Return the values that take the place of a command's own defaults, by parameter. Raises OptionError."""
    known = options_of(program)
    found = settings(command, known.get(command, []), read_config(config_path(), known))
    return {setting.option.name: setting.value for setting in found if setting.source != "default"}


def _options(command: Any) -> Iterator[Option]:
    hints = get_type_hints(command.callback) if command.callback else {}
    for parameter in command.params:
        long = tuple(flag for flag in parameter.opts if flag.startswith("--"))
        if parameter.param_type_name != "option" or not long or parameter.name not in hints:
            continue
        kind = hints[parameter.name]
        if get_origin(kind) in (Union, UnionType):
            kind = next(part for part in get_args(kind) if part is not type(None))
        multiple = get_origin(kind) is list
        kind = get_args(kind)[0] if multiple else kind
        default = bool(parameter.default) if kind is bool else parameter.default
        yield Option(parameter.name, long, kind, multiple, default, parameter.help or "")


def _parsed(path: Path) -> dict[str, object]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise OptionError(f"{shown(str(path), limit=200)} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise OptionError(f"{shown(str(path), limit=200)} is not TOML: {shown(str(error), limit=200)}") from error


def _checked(path: Path, name: str, key: str, value: object, options: list[Option]) -> object:
    named = [option for option in options if _key(key) in option.keys]
    if not named:
        hint = _near(_key(key), [option.key for option in options])
        raise OptionError(f"{shown(str(path), limit=200)}: there is no option {shown(name)}{hint}")
    if not any(_fits(option, value) for option in named):
        raise OptionError(
            f"{shown(str(path), limit=200)}: {shown(name)} is {shown(repr(value))}; it must be {named[0].allowed}"
        )
    return value


def _fits(option: Option, value: object) -> bool:
    if option.multiple and isinstance(value, list):
        return all(_is(option.kind, item) for item in value)
    return _is(option.kind, value)


def _is(kind: type, value: object) -> bool:
    if isinstance(value, bool) or kind is bool:
        return kind is bool and isinstance(value, bool)
    return isinstance(value, (int, float) if kind is float else int if kind is int else str)


def _from_environment(option: Option, text: str) -> object:
    """Return the value that a variable's text means; several stand on a line each."""
    try:
        values = [_value(option.kind, line) for line in (text.split("\n") if option.multiple else [text])]
    except ValueError:
        raise OptionError(f"{option.variable} is {shown(repr(text))}; it must be {ALLOWED[option.kind]}") from None
    return values if option.multiple else values[0]


def _value(kind: type, text: str) -> object:
    if kind is not bool:
        return text if kind is Path else kind(text)
    if text.lower() not in (*YES, *NO):
        raise ValueError
    return text.lower() in YES


def _near(name: str, known: list[str]) -> str:
    known = sorted(set(known))
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]}?" if near else f"; there are {', '.join(known)}"


def _key(flag: str) -> str:
    return flag.removeprefix("--").replace("-", "_")
