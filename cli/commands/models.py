"""The options of ``models``; heavy imports are inside."""

from mistral_mlx.cli.models.registry import registered
from mistral_mlx.cli.options import shared

EXAMPLES = """\
mistral-mlx models
mistral-mlx models --json | jq -r '.[].name'
"""


def models(as_json: shared.Json = False) -> None:
    """List the registered models.

    The columns are size, bits per weight, window and path.
    """
    from mistral_mlx.cli.reports import models as command

    command.show([command.describe(name, path) for name, path in sorted(registered().items())], as_json=as_json)
