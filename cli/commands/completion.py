"""``completion``: prints the script that makes a shell complete commands, options and names."""

from contextlib import redirect_stdout
from io import StringIO
from typing import Annotated

import typer

from mistral_mlx.cli.terminal.streams import write_raw
from mistral_mlx.errors import OptionError, shown

from .offers import SHELLS, shells

EXAMPLES = """\
source <(mistral-mlx completion bash)
mistral-mlx completion fish | source
"""


def completion(
    context: typer.Context,
    shell: Annotated[str, typer.Argument(metavar="SHELL", autocompletion=shells, help=f"One of {', '.join(SHELLS)}.")],
) -> None:
    """Print the completion script of a shell.

    With it the Tab key completes commands, options, and the names of models, sessions and templates.
    """
    from typer.completion import shell_complete

    if shell not in SHELLS:
        raise OptionError(f"there is no completion for {shown(shell)}; choose one of {', '.join(SHELLS)}")
    with redirect_stdout(StringIO()) as script:
        shell_complete(context.find_root().command, {}, "mistral-mlx", "_MISTRAL_MLX_COMPLETE", f"source_{shell}")
    write_raw(script.getvalue())
