"""The options of ``doctor``; heavy imports are inside, and the checks guard them."""

from typing import Annotated

import typer

from mistral_mlx.cli.options.command import commands_of
from mistral_mlx.cli.options.shared import output_option
from mistral_mlx.cli.statuses import Status

EXAMPLES = """\
mistral-mlx doctor
mistral-mlx doctor --json > report.json
"""


def doctor(
    context: typer.Context,
    as_json: Annotated[
        bool,
        output_option(
            "--json",
            allow_from_autoenv=False,  # a broken config file must not stop this command
            help="Write one JSON object instead of text.",
        ),
    ] = False,
) -> None:
    """Check the installation, for you and for a bug report.

    A line is ok, a note, or a fault, which says what to do; with a fault the exit status is 1. Nothing is changed, no
    connection is opened, and passwords and tokens are never shown.
    """
    from mistral_mlx.cli.reports.doctor import report

    if report.run(commands_of(context), as_json=as_json):
        raise typer.Exit(Status.INTERNAL)
