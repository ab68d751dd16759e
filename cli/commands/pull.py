"""The options of ``pull``; heavy imports are inside."""

from typing import Annotated

import typer

from mistral_mlx.cli.options import shared
from mistral_mlx.cli.terminal.notes import Notes
from mistral_mlx.errors import OptionError

EXAMPLES = """\
mistral-mlx pull demo
mistral-mlx pull mistralai/Ministral-3-3B-Instruct-2512 --dry-run
mistral-mlx pull mistralai/Mistral-7B-Instruct-v0.3 mistral
"""
DEMO = "demo"

Globs = list[str] | None


def pull(
    context: typer.Context,
    model: Annotated[
        str,
        typer.Argument(
            metavar="ORG/REPO", help="A model on the hub, also ORG/REPO@REVISION; or demo, a small model to try."
        ),
    ],
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="The name to register; by default ORG/REPO.")
    ] = None,
    revision: Annotated[str | None, typer.Option(metavar="REV", help="A branch, a tag or a commit.")] = None,
    include: Annotated[
        Globs, typer.Option(metavar="GLOB", help="Fetch only files with such names; may be repeated.")
    ] = None,
    exclude: Annotated[
        Globs, typer.Option(metavar="GLOB", help="Do not fetch files with such names; may be repeated.")
    ] = None,
    dry_run: Annotated[
        bool, shared.output_option("--dry-run", help="Say what would be fetched, and whether the model runs here.")
    ] = False,
    as_json: shared.Json = False,
    quiet: shared.Quiet = False,
) -> None:
    """Fetch a model from a hub, and register its name.

    The hub is Hugging Face's, or that of HF_ENDPOINT. After Ctrl-C or a crash, the same command goes on where it
    stopped. Only files that this program reads are fetched, and their hashes are checked. No other command uses the
    network.
    """
    notes = Notes(quiet=quiet)
    if model == DEMO:
        others = ("name", "revision", "include", "exclude", "dry_run", "as_json")
        _pull_demo(notes, has_others=any(shared.is_given(context, other) for other in others))
        return
    from mistral_mlx.cli.models import pull as command
    from mistral_mlx.cli.reports import pull as report

    wanted = command.wanted(model, name, revision, include or [], exclude or [])
    if dry_run:
        report.show_outlook(command.look(wanted, notes), notes, as_json=as_json)
    else:
        report.show_result(wanted.name, command.pull(wanted, notes), notes, as_json=as_json)


def _pull_demo(notes: Notes, *, has_others: bool) -> None:
    from mistral_mlx.cli.models.demo import pull_demo

    if has_others:
        raise OptionError("pull demo takes no other argument and no option but --quiet")
    pull_demo(notes)
