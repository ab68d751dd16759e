"""The command ``cache`` and its subcommands; heavy imports are inside."""

from mistral_mlx.cli.models.kept import kept_prompts
from mistral_mlx.cli.options import shared
from mistral_mlx.cli.options.command import Subcommands
from mistral_mlx.cli.terminal.notes import Notes

app = Subcommands(
    help="List and remove kept prompts.\n\nThey are the beginnings of prompts that complete and chat keep on the disk."
)


@app.command("list")
def list_kept(as_json: shared.Json = False) -> None:
    """List the kept prompts with tokens, size, last use and model."""
    from mistral_mlx.cli.reports import cache as report

    report.show(kept_prompts(Notes())().found(), as_json=as_json)


@app.command("clear")
def clear_kept() -> None:
    """Remove all kept prompts."""
    from mistral_mlx.cli.reports import cache as report

    n, nbytes = kept_prompts(Notes())().clear()
    Notes().always(report.removed(n, nbytes))
