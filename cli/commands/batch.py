"""The options of ``batch``; heavy imports stand inside."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from mistral_mlx.cli.models import registry
from mistral_mlx.cli.options import shared
from mistral_mlx.cli.options.sampling import with_sampling

from .complete import split_settings


@with_sampling
def batch(
    context: typer.Context,
    source: Annotated[Path, typer.Argument(metavar="FILE", help="Prompts, a JSON value a line; - is stdin.")],
    model: shared.Model = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Append here, and go on where an earlier run ended."),
    ] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Continue the texts, without instruct format.")] = False,
    system: shared.System = None,
    template: shared.Template = None,
    max_tokens: shared.MaxTokens = shared.MAX_TOKENS,
    stop: shared.Stop = None,
    quiet: shared.Quiet = False,
    device: shared.Device = "auto",
    threads: shared.Threads = 0,
    force: shared.Force = False,
    **sampling: Any,
) -> None:
    """Answer many prompts, one after the other, as JSON lines in their order.

    A line of the input is a text, a list of messages, or an object with prompt or messages, and with id, system,
    prefill or any option of sampling of its own.
    """
    from mistral_mlx.cli.answers import batch as command
    from mistral_mlx.cli.models.opening import open_model, use_device, use_threads

    settings, limit, stops = split_settings(context, sampling, {})
    defaults = command.Defaults(settings, limit, stops, system=system, template=template, raw=raw)
    tasks = command.read_tasks(sys.stdin.buffer.read() if str(source) == "-" else command.read_file(source))
    with command.Results(output, tasks, model or "") as results:
        if results.remaining:
            use_device(device)
            use_threads(threads, quiet=quiet)
            opened = open_model(registry.resolve(model), force=force, quiet=quiet)
            command.run(results, defaults, *opened, quiet=quiet)
        command.leave(results, quiet=quiet)
