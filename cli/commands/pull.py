"""The options of ``pull``; heavy imports are inside."""

from typing import Annotated

import typer

from mistral_mlx.cli.options import shared
from mistral_mlx.cli.terminal.notes import Notes
from mistral_mlx.errors import OptionError

EXAMPLES = "mistral-mlx pull demo"


def pull(
    name: Annotated[str, typer.Argument(metavar="demo", help="The model to fetch; so far only demo.")],
    quiet: shared.Quiet = False,
) -> None:
    """Fetch a small real chat model and register it under its name."""
    from mistral_mlx.cli.models.pull import NAME, pull_demo

    if name != NAME:
        raise OptionError(f"there is no model {name!r} to pull; {NAME!r} is")
    pull_demo(Notes(quiet=quiet))
