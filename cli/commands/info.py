"""The options of ``info``; heavy imports are inside."""

import typer

from mistral_mlx.cli.models import registry
from mistral_mlx.cli.options import shared
from mistral_mlx.cli.terminal.notes import Notes

EXAMPLES = "mistral-mlx info demo"


def info(
    context: typer.Context,
    name: shared.ModelName = None,
    model: shared.Model = None,
    as_json: shared.Json = False,
) -> None:
    """Show what a model is, and what running it takes."""
    from mistral_mlx.cli.reports import info as command

    model = shared.chosen_model(shared.named_model(context, name, model), Notes())
    command.show(command.describe(registry.resolve(model)), as_json=as_json)
