"""The options of ``info``; heavy imports are inside."""

import typer

from mistral_mlx.cli.models import registry
from mistral_mlx.cli.options import shared

EXAMPLES = "mistral-mlx info demo"


def info(
    context: typer.Context,
    name: shared.ModelName = None,
    model: shared.Model = None,
    as_json: shared.Json = False,
) -> None:
    """Show what a model is, and what running it takes."""
    from mistral_mlx.cli.reports import info as command

    command.show(command.describe(registry.resolve(shared.named_model(context, name, model))), as_json=as_json)
