"""The config file: what its tables give to the options of commands, and what in it is wrong."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mistral_mlx.cli.models.small_file import small_text
from mistral_mlx.errors import ModelError, OptionError, shown

from .sources import Option, key_of, near

REPLACED = {"force": "ignore_memory"}  # keys of earlier versions

Known = Mapping[str, list[Option]]  # the options that the file may set, by command


@dataclass(frozen=True)
class Fault:
    """Something wrong in the file: in the table of a command, or with an empty `table` above the first one."""

    text: str  # names the file
    table: str = ""
    key: str = ""  # empty if the whole file or table is wrong
    is_unknown: bool = True  # whether no option has this key

    def concerns(self, command: str, options: list[Option]) -> bool:
        """Whether a command cannot know its options for it; a key that is unknown may mean any command with a model."""
        if self.table:
            return self.table == command
        if self.is_unknown:
            return any(option.name == "model" for option in options)
        return any(self.key in option.keys for option in options)


@dataclass(frozen=True)
class Config:
    """What the file says: values by table and key ("" is the table above the first one), and what is wrong."""

    tables: Mapping[str, Mapping[str, object]]
    faults: tuple[Fault, ...] = ()

    def value(self, command: str, option: Option) -> tuple[object, str] | None:
        """Return the value that the file gives to a command's option, and its key there; None if it gives none."""
        for table in (command, ""):
            found = option.keys & self.tables.get(table, {}).keys()
            value = self.tables[table][min(found)] if found and option.settable else None
            if value is not None and (table or option.fits(value)):
                is_one = option.parameter.multiple and not isinstance(value, list)
                return ([value] if is_one else value), f"{table}.{min(found)}".lstrip(".")
        return None


def read_config(path: Path, known: Known) -> Config:
    """Return what the config file says; nothing if there is no file. What is wrong is left out and named."""
    try:
        plain = parsed(config_text(path), path)
    except OptionError as error:
        return Config({}, (Fault(str(error)),))
    tables: dict[str, dict[str, object]] = {"": {}}
    faults: list[Fault] = []
    for key, value in plain.items():
        if isinstance(value, dict):
            _take_table(path, key, value, known, tables, faults)
        else:
            everything = [option for options in known.values() for option in options]
            _take(path, "", key, value, everything, tables[""], faults)
    return Config(tables, tuple(faults))


def config_text(path: Path) -> str:
    """Return the text of the config file, which may be empty. Raises OptionError if it cannot be read."""
    try:
        return small_text(path, follow=True) or ""
    except ModelError as error:
        raise OptionError(str(error)) from error


def parsed(text: str, path: Path) -> dict[str, object]:
    """Return what a text of the file `path` says. Raises OptionError if it is not TOML."""
    import tomllib

    try:
        return tomllib.loads(text)
    except ValueError as error:
        raise OptionError(f"{_named(path)} is not TOML: {shown(str(error), limit=200)}") from error


def options_for(path: Path, table: str, key: str, known: Known) -> list[Option]:
    """Return the options that a key may set, of one command or with an empty `table` of all.

    Raises OptionError, which names the file, if there is none.
    """
    if table and table not in known:
        raise OptionError(f"{_named(path)}: there is no command {shown(table)}{near(table, known)}")
    options = known[table] if table else [option for options in known.values() for option in options]
    named = [option for option in options if key_of(key) in option.keys]
    name = shown(f"{table}.{key}".lstrip("."))
    if not named:
        new = REPLACED.get(key_of(key))
        renamed = f"; it is called {new} now (or --overwrite, which counts only on the command line)"
        hint = renamed if new else near(key_of(key), [o.key for o in options if o.settable])
        raise OptionError(f"{_named(path)}: there is no option {name}{hint}")
    if not any(option.settable for option in named):
        raise OptionError(f"{_named(path)}: {name} cannot be set here: give {named[0].flags[0]} on the command line")
    return named


def _take_table(
    path: Path,
    table: str,
    values: Mapping[str, object],
    known: Known,
    tables: dict[str, dict[str, object]],
    faults: list[Fault],
) -> None:
    if table not in known:
        faults.append(Fault(f"{_named(path)}: there is no command {shown(table)}{near(table, known)}"))
        return
    tables[table] = {}
    for key, value in values.items():
        _take(path, table, key, value, known[table], tables[table], faults)


def _take(
    path: Path,
    table: str,
    key: str,
    value: object,
    options: list[Option],
    values: dict[str, object],
    faults: list[Fault],
) -> None:
    """Put a value into `values`, or what is wrong with it into `faults`."""
    is_unknown = not any(key_of(key) in option.keys for option in options)
    try:
        named = options_for(path, table, key, {table: options})
        if not any(option.fits(value) for option in named):
            name = shown(f"{table}.{key}".lstrip("."))
            raise OptionError(f"{_named(path)}: {name} is {shown(repr(value))}; it must be {named[0].allowed}")
    except OptionError as error:
        faults.append(Fault(str(error), table, key_of(key), is_unknown))
    else:
        values[key_of(key)] = value


def _named(path: Path) -> str:
    return shown(str(path), limit=200)
