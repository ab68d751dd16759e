"""The command ``config`` and its subcommands; heavy imports are inside."""

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from mistral_mlx.cli.models import registry
from mistral_mlx.cli.options import shared
from mistral_mlx.cli.options.answer import AnswerKnobs
from mistral_mlx.cli.options.command import Configurable, Subcommands, commands_of, warn_of_settings
from mistral_mlx.cli.options.config_file import Known, config_text, options_for, parsed, read_config
from mistral_mlx.cli.options.other_programs import our_spelling
from mistral_mlx.cli.options.sources import Option, config_path, key_of
from mistral_mlx.cli.terminal.notes import Notes
from mistral_mlx.cli.terminal.streams import write_text
from mistral_mlx.errors import OptionError, shown
from mistral_mlx.sampling.knobs import knobs

EXAMPLES = """\
mistral-mlx config set model demo
mistral-mlx config set chat.temperature 0.4
mistral-mlx config unset chat.temperature
"""
MODELS = ("model", "draft_model")  # options that name one

Key = Annotated[
    str, typer.Argument(metavar="KEY", help="The name of an option, or COMMAND.NAME for one command alone.")
]

app = Subcommands()


@app.callback(invoke_without_command=True)
def config(
    context: typer.Context,
    everything: Annotated[bool, typer.Option("--all", help="Also show the options that have their defaults.")] = False,
    as_json: shared.Json = False,
) -> None:
    """Show and change what options are set to, and where.

    They are set by variables of the environment, MISTRAL_MLX_<OPTION>, and by the config file.
    """
    from mistral_mlx.cli.reports import config as report

    if context.invoked_subcommand is not None:
        return
    warn_of_settings(context, all_faults=True)
    commands = context.find_root().command.commands.items()  # type: ignore[attr-defined]  # it is a group
    settings = {name: list(of.settings(context)) for name, of in commands if isinstance(of, Configurable)}
    faults = [fault.text for fault in read_config(config_path(), commands_of(context)).faults]
    report.show({n: of for n, of in settings.items() if of}, faults, as_json=as_json, everything=everything)


@app.command("set", context_settings={"ignore_unknown_options": True})  # -1 is a value
def set_value(
    context: typer.Context,
    key: Key,
    values: Annotated[
        list[str], typer.Argument(metavar="VALUES", help="The value; several for an option that may be repeated.")
    ],
) -> None:
    """Set an option in the config file, and leave the rest of it."""
    from mistral_mlx.cli.options.config_edit import with_value

    file, known = config_path(), commands_of(context)
    table, name = _table_and_name(key)
    option = options_for(file, table, name, known)[0]
    value = _value(option, key, values)
    text = config_text(file)
    name = _spelled(parsed(text, file), table, option)
    _write(file, with_value(text, table, name, value))
    first = f"; {option.variable} is set, too, and comes first" if os.environ.get(option.variable) else ""
    Notes().always(f"{_joined(table, name)} is {json.dumps(value, ensure_ascii=False)} now, in {file}{first}")


@app.command()
def unset(context: typer.Context, key: Key) -> None:
    """Remove an option from the config file."""
    from mistral_mlx.cli.options.config_edit import without_value

    file = config_path()
    old = config_text(file)
    table, name = _there(parsed(old, file), key, commands_of(context))
    text = without_value(old, table, name)
    if text is None:
        raise OptionError(f"{_joined(table, name)} is not set in {shown(str(file), limit=200)}")
    _write(file, text)
    Notes().always(f"{_joined(table, name)} is no longer set in {file}")


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
    from mistral_mlx.cli.reports import config as report
    from mistral_mlx.cli.terminal import editor as editors

    file, known = config_path(), commands_of(context)
    if not file.exists():
        _write(file, report.draft(known))
    editors.edit(file, editor)
    for fault in read_config(file, known).faults:
        raise OptionError(fault.text)
    Notes().always(f"{file} is fine")


def _table_and_name(key: str) -> tuple[str, str]:
    table, _, name = key.removeprefix("--").rpartition(".")
    return table, key_of(our_spelling(name))


def _there(plain: dict[str, object], key: str, known: Known) -> tuple[str, str]:
    """Return the table and name that the file has for a key, which may be wrong; if it has none, those of the key."""
    table, name = _table_and_name(key)
    typed = key_of(key.removeprefix("--").rpartition(".")[2])
    if typed in _names(plain, table):
        return table, typed
    options = [option for of in known.values() for option in of if name in option.keys]
    return table, _spelled(plain, table, options[0]) if options else name


def _spelled(plain: dict[str, object], table: str, option: Option) -> str:
    """Return the name that the file has for an option already, or its own."""
    return min(option.keys & _names(plain, table), default=option.key)


def _names(plain: dict[str, object], table: str) -> set[str]:
    """Return the names in a table of the file."""
    values = plain.get(table, {}) if table else plain
    return {key_of(name) for name in values} if isinstance(values, dict) else set()


def _value(option: Option, key: str, texts: list[str]) -> object:
    """Return what was typed as the value of an option. Raises OptionError; ModelError for a model that is not here."""
    try:
        value = option.typed(texts)
    except (ValueError, KeyError) as error:
        raise OptionError(f"{key} is {shown(' '.join(texts))}; it must be {option.allowed}") from error
    if option.key in MODELS:
        registry.located(str(value))
    if (option.key in MODELS and registry.is_path(str(value))) or option.is_path:
        return os.path.abspath(os.path.expanduser(str(value)))  # the file holds for every folder
    limits = knobs(AnswerKnobs).get(option.key)
    if limits is not None:
        limits.from_plain([value] if option.parameter.multiple and not isinstance(value, list) else value)
    return value


def _joined(table: str, name: str) -> str:
    return f"{table}.{name}".lstrip(".")


def _write(file: Path, text: str) -> None:
    """Write the config file as a whole; a link to it stays one."""
    from mistral_mlx.files.whole import new_file, partial_path

    file = file.resolve()
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = partial_path(file)
    with new_file(draft) as written:
        written.write(text.encode())
    if file.exists():
        draft.chmod(file.stat().st_mode)
    draft.replace(file)
