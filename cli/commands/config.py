"""The command ``config`` and its subcommands; heavy imports are inside."""

from typing import Annotated

import typer

from mistral_mlx.cli.options import shared
from mistral_mlx.cli.options.help import Configurable, commands_of, warn_of_variables
from mistral_mlx.cli.options.sources import config_path, read_config
from mistral_mlx.cli.terminal.notes import Notes
from mistral_mlx.cli.terminal.streams import write_text

app = typer.Typer(rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def config(context: typer.Context, as_json: shared.Json = False) -> None:
    """Show the value of every option and its origin."""
    from mistral_mlx.cli.reports import config as report

    if context.invoked_subcommand is None:
        warn_of_variables(context)
        commands = context.find_root().command.commands.items()  # type: ignore[attr-defined]  # it is a group
        settings = {name: list(of.settings(context)) for name, of in commands if isinstance(of, Configurable)}
        report.show({name: of for name, of in settings.items() if of}, as_json=as_json)


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
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(report.draft(known), encoding="utf-8")
    editors.edit(file, editor)
    read_config(file, known)
    Notes().always(f"{file} is fine")
