"""The report of ``config`` on the values of options, and the draft of the config file."""

import json
from collections import Counter
from collections.abc import Iterable

from mistral_mlx.cli.models.home import check_home, home
from mistral_mlx.cli.options.sources import Option, Setting, config_path
from mistral_mlx.cli.terminal.notes import Notes
from mistral_mlx.cli.terminal.streams import write_text
from mistral_mlx.cli.terminal.table import print_json, table

MAX_WIDTH = 24  # of a column; longer values move the rest of their line
TITLES = ("SET BY", "VALUE", "FROM", "COMMANDS")
HEAD = """\
# Settings of mistral-mlx. Remove the # in front of a line to use it. What stands
# above the first [table] holds for all commands that have the option.
"""
TABLES = "# What stands below a [table] holds for one command, and comes before the above.\n"

Settings = dict[str, list[Setting]]  # by command


def show(settings: Settings, faults: Iterable[str], *, as_json: bool, everything: bool) -> None:
    """Write the settings of each command to stdout, as JSON or as tables: those that are set, or `everything`."""
    if as_json:
        file = config_path()
        options = {command: {s.option.key: _record(s) for s in of} for command, of in settings.items()}
        print_json({"file": str(file), "exists": file.exists(), "faults": list(faults), "options": options})
    elif everything:
        tables = (
            f"[{command}]\n{table([_row(s) for s in of], max_width=MAX_WIDTH)}" for command, of in settings.items()
        )
        write_text("\n".join(tables))
    else:
        _show_set(settings, are_faults=bool(list(faults)))


def draft(known: dict[str, list[Option]]) -> str:
    """Return a config file in which everything is commented out; an option of several commands stands once, on top."""
    shared: dict[str, Option] = {}
    own: dict[str, list[Option]] = {}
    for command, of in known.items():
        for option in of:
            others = [o for options in known.values() for o in options if o.key == option.key]
            is_shared = len(others) > 1 and all(other.default == option.default for other in others)
            if option.settable and is_shared:
                shared.setdefault(option.key, option)
            elif option.settable:
                own.setdefault(command, []).append(option)
    model = '# model = "demo"  # the model of all commands that are given none\n'
    top = [_drafted(option) for option in shared.values() if option.key != "model"]
    tables = [f"\n# [{command}]\n{''.join(map(_drafted, of))}" for command, of in own.items()]
    return "".join([HEAD, "\n", model, *top, "\n", TABLES, *tables])


def _show_set(settings: Settings, *, are_faults: bool) -> None:
    """Write what is set, once for all commands that get it. Faults of the file are said already."""
    commands: dict[tuple[str, str, str], list[str]] = {}
    keys = {}
    for command, s in ((command, s) for command, of in settings.items() for s in of if s.where is not None):
        commands.setdefault((str(s.where), _toml(s.value), s.source), []).append(command)
        keys[str(s.where)] = s.option.key
    notes, file = Notes(), config_path()
    if not commands and are_faults:
        notes.always("nothing else is set; 'mistral-mlx config edit' opens the file, to correct it")
        return
    if not commands:
        if file.is_relative_to(home()):
            check_home()
        change = f"'mistral-mlx config set KEY VALUE' writes into {file}"
        notes.always(f"nothing is set: all options have their defaults, which --all shows; {change}")
        return
    having = Counter(s.option.key for of in settings.values() for s in of)
    rows = [(*row, "all" if len(of) == having[keys[row[0]]] else ", ".join(of)) for row, of in commands.items()]
    write_text(table([TITLES, *rows], max_width=MAX_WIDTH))
    notes.always(f"the config file is {file}; --all also shows the defaults")


def _drafted(option: Option) -> str:
    return f"# {option.key} = {_toml(option.default) or '…'}  # {option.parameter.help}\n"


def _record(setting: Setting) -> dict[str, object]:
    variable = setting.option.variable
    return {"value": setting.value, "source": setting.source, "where": setting.where, "variable": variable}


def _row(setting: Setting) -> tuple[str, str, str]:
    origin = setting.source + (f" ({setting.where})" if setting.where else "")
    return setting.option.key, _toml(setting.value), origin


def _toml(value: object) -> str:
    """Return a value as it is written in the file, which JSON is near enough to; nothing for none."""
    return "" if value is None else json.dumps(value, ensure_ascii=False)
