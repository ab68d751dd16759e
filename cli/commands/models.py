"""The command ``models`` and its subcommands; heavy imports are inside."""

from typing import Annotated

import typer

from mistral_mlx.cli.models import registry
from mistral_mlx.cli.models.home import check_home
from mistral_mlx.cli.options import shared
from mistral_mlx.cli.options.command import CommandGroup, Subcommands
from mistral_mlx.cli.terminal.notes import Notes
from mistral_mlx.errors import shown

EXAMPLES = """\
mistral-mlx models
mistral-mlx models --json | jq -r '.[].name'
mistral-mlx models --discover
mistral-mlx models add mistral ./mistral-4bit
"""

app = Subcommands(cls=CommandGroup)


@app.callback(invoke_without_command=True)
def models(
    context: typer.Context,
    discover: Annotated[
        bool,
        typer.Option(
            "--discover", help="Also list the models of Hugging Face's cache, LM Studio and Ollama on this disk."
        ),
    ] = False,
    as_json: shared.Json = False,
) -> None:
    """List, add and rename models on this disk.

    The columns are size, bits per weight, window and path of those that are registered.
    """
    if context.invoked_subcommand is not None:
        return
    known = sorted(registry.registered().items())
    if not known and not discover:
        check_home()
    if discover:
        from mistral_mlx.cli.reports import discovered

        discovered.show(discovered.describe(known), as_json=as_json)
    else:
        from mistral_mlx.cli.reports import models as command

        command.show([command.describe(name, path) for name, path in known], as_json=as_json)


@app.command()
def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The new name, such as mistral, or ORG/REPO.")],
    folder: Annotated[str, typer.Argument(metavar="DIR", help="A model folder, or a name of one on this disk.")],
) -> None:
    """Register a name for a model folder, which stays where it is."""
    from mistral_mlx.cli.reports import models as command

    path = command.checked(folder)
    registry.register(name, path, takes_over=False)
    Notes().always(f"{shown(name)} is registered: {shown(str(path.resolve()), limit=200)}")


@app.command()
def remove(
    name: Annotated[
        str, typer.Argument(metavar="NAME", autocompletion=registry.model_names, help="The registered name.")
    ],
) -> None:
    """Forget a registered name; the folder stays."""
    folder = registry.unregister(name)
    Notes().always(
        f"{shown(name)} is no longer registered; its folder stays: {shown(str(folder), limit=200)} (delete it yourself)"
    )


@app.command()
def rename(
    old: Annotated[
        str, typer.Argument(metavar="OLD", autocompletion=registry.model_names, help="The registered name.")
    ],
    new: Annotated[str, typer.Argument(metavar="NEW", help="The name that takes its place.")],
) -> None:
    """Give a registered model another name."""
    registry.rename(old, new)
    Notes().always(f"{shown(old)} is called {shown(new)} now")
