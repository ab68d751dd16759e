"""The options of ``batch``; heavy imports stand inside."""

from pathlib import Path
from typing import Annotated, Any

import typer

from . import options, registry
from .complete_command import answer_options
from .reading import read_file, read_stdin
from .sampling import with_sampling


@with_sampling
def batch(
    context: typer.Context,
    source: Annotated[Path, typer.Argument(metavar="FILE", help="Prompts, a JSON value a line; - is stdin.")],
    model: options.Model = None,
    output: Annotated[
        Path | None,
        options.output_option(
            "--output", "-o", metavar="FILE", help="Append here, and go on where an earlier run ended."
        ),
    ] = None,
    raw: Annotated[bool, options.prompt_option("--raw", help="Continue the texts, without instruct format.")] = False,
    system: options.System = None,
    template: options.Template = None,
    max_tokens: options.MaxTokens = options.MAX_TOKENS,
    stop: options.Stop = None,
    quiet: options.Quiet = False,
    device: options.Device = "auto",
    threads: options.Threads = 0,
    ignore_memory: options.IgnoreMemory = False,
    **sampling: Any,
) -> None:
    """Answer many prompts, one after the other, as JSON lines in their order.

    A line of the input is a text, a list of messages, or an object with prompt or messages, and with id, system,
    prefill or any option of sampling of its own.
    """
    from . import batch as command
    from .opening import open_model, use_device, use_threads

    defaults = command.Defaults(answer_options(context, sampling, {}), system=system, template=template, raw=raw)
    tasks = command.read_tasks(read_stdin() if str(source) == "-" else read_file(source, "file of prompts"))
    with command.Results(output, tasks, model or "") as results:
        if results.remaining:
            use_device(device)
            use_threads(threads, quiet=quiet)
            opened = open_model(registry.resolve(model), ignore_memory=ignore_memory, quiet=quiet)
            command.run(results, defaults, *opened, quiet=quiet)
        command.leave(results, quiet=quiet)
