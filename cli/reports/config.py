"""The report of ``config`` on the values of options, and the draft of the config file."""

import json

from mistral_mlx.cli.options.sources import Option, Setting, config_path
from mistral_mlx.cli.terminal.streams import write_text
from mistral_mlx.cli.terminal.table import print_json, table

MAX_WIDTH = 24  # of a column; longer values move the rest of their line


def show(settings: dict[str, list[Setting]], *, as_json: bool) -> None:
    """Write the settings of each command to stdout, as JSON or as tables."""
    if as_json:
        file = config_path()
        options = {command: {s.option.key: _record(s) for s in of} for command, of in settings.items()}
        print_json({"file": str(file), "exists": file.exists(), "options": options})
        return
    tables = (f"[{command}]\n{table(list(map(_row, of)), max_width=MAX_WIDTH)}\n" for command, of in settings.items())
    write_text("".join(tables))


def draft(known: dict[str, list[Option]]) -> str:
    """Return a config file in which everything is commented out."""
    lines = ["# Settings of mistral-mlx. Take away the # of a table's name and of what is to be changed in it.", ""]
    for command, of in known.items():
        rows = [f"# {o.key} = {_toml(o.default) or '…'}  # {o.parameter.help}" for o in of if o.settable]
        lines += [f"# [{command}]", *rows, ""] if rows else []
    return "\n".join(lines)


def _record(setting: Setting) -> dict[str, object]:
    variable = setting.option.variable
    return {"value": setting.value, "source": setting.source, "where": setting.where, "variable": variable}


def _row(setting: Setting) -> tuple[str, str, str]:
    origin = setting.source + (f" ({setting.where})" if setting.where else "")
    return setting.option.key, _toml(setting.value), origin


def _toml(value: object) -> str:
    """Return a value as it is written in the file, which JSON is near enough to; nothing for none."""
    return "" if value is None else json.dumps(value, ensure_ascii=False)
