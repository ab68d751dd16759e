"""``config``: what every option is set to and where that comes from, and the file to set them in."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from mistral_mlx.cli.options import shared
from mistral_mlx.cli.options.help import Command, commands_of, warn_of_variables
from mistral_mlx.cli.options.sources import Option, Setting, config_path, read_config
from mistral_mlx.cli.terminal.notes import note
from mistral_mlx.cli.terminal.sanitize import inert
from mistral_mlx.cli.terminal.streams import write_text
from mistral_mlx.errors import OptionError, shown

app = typer.Typer(rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def config(context: typer.Context, as_json: shared.Json = False) -> None:
    """Show what every option is set to, and where that comes from."""
    if context.invoked_subcommand is None:
        warn_of_variables(context)
        commands = context.find_root().command.commands.items()  # type: ignore[attr-defined]  # it is a group
        settings = {name: list(of.settings(context)) for name, of in commands if isinstance(of, Command)}
        found = {name: of for name, of in settings.items() if of}
        write_text(_as_json(found) if as_json else "".join(map(_table, found.items())))


@app.command()
def path() -> None:
    """Print the path of the config file."""
    write_text(f"{config_path()}\n")


@app.command()
def edit(
    context: typer.Context,
    editor: Annotated[str | None, typer.Option(metavar="COMMAND", help="By default $VISUAL, $EDITOR or vi.")] = None,
) -> None:
    """Open the config file in an editor, and check it afterwards."""
    file, known = config_path(), commands_of(context)
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(_draft(known), encoding="utf-8")
    _run_editor(editor or os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi", file)
    read_config(file, known)
    note(f"{file} is fine")


def _run_editor(command: str, file: Path) -> None:
    if not sys.stdin.isatty() and command == "vi":
        raise OptionError(f"there is no terminal for an editor; set EDITOR, or edit {file}")
    try:
        status = subprocess.run([*shlex.split(command), str(file)]).returncode
    except (OSError, ValueError) as error:
        raise OptionError(f"the editor {shown(command)} cannot be run ({error}); set EDITOR") from error
    if status:
        raise OptionError(f"the editor {shown(command)} ended with status {status}")


def _as_json(found: dict[str, list[Setting]]) -> str:
    values = {
        command: {
            s.option.key: {"value": s.value, "source": s.source, "where": s.where, "variable": s.option.variable}
            for s in of
        }
        for command, of in found.items()
    }
    file = config_path()
    return json.dumps({"file": str(file), "exists": file.exists(), "options": values}, ensure_ascii=False) + "\n"


def _table(found: tuple[str, list[Setting]]) -> str:
    command, of = found
    rows = [(s.option.key, _toml(s.value), s.source + (f" ({s.where})" if s.where else "")) for s in of]
    key, value = (max(len(row[i]) for row in rows) for i in (0, 1))
    lines = [f"{row[0]:<{key}}  {row[1]:<{min(value, 24)}}  {row[2]}" for row in rows]
    return inert(f"[{command}]\n" + "\n".join(lines)) + "\n\n"


def _toml(value: object) -> str:
    """Return a value as it would stand in the file, which JSON is near enough to; nothing for none."""
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def _draft(known: dict[str, list[Option]]) -> str:
    """Return a config file in which everything is commented out."""
    lines = ["# Settings of mistral-mlx. Take away the # of a table's name and of what is to be changed in it.", ""]
    for command, of in known.items():
        rows = [f"# {o.key} = {_toml(o.default) or '…'}  # {o.parameter.help}" for o in of if o.settable]
        lines += [f"# [{command}]", *rows, ""] if rows else []
    return "\n".join(lines)
