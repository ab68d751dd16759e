"""The options of ``eval``; heavy imports stand inside."""

from typing import Annotated

import typer

from . import options, registry

EXAMPLES = """\
mistral-mlx eval -m demo --text wiki.test.raw --chunks 40
mistral-mlx eval -m mistral-4bit --against mistral-8bit --text wiki.test.raw --json
"""
CONTEXT = 512  # the engine's, which --help need not import; a test holds them equal


def evaluate(
    context: typer.Context,
    text: Annotated[str, options.evaluation_option(metavar="FILE", help="The text to predict, UTF-8; - is stdin.")],
    name: options.ModelName = None,
    model: options.Model = None,
    against: Annotated[
        str | None,
        options.evaluation_option(
            metavar="MODEL", help="A reference to compare with, such as the same model in more bits."
        ),
    ] = None,
    window: Annotated[int, options.evaluation_option("--context", metavar="N", help="Tokens of a window.")] = CONTEXT,
    stride: Annotated[
        int | None,
        options.evaluation_option(
            metavar="N", help="Begin a window every N tokens and score its last N; by default the last half."
        ),
    ] = None,
    chunks: Annotated[
        int | None, options.evaluation_option(metavar="N", help="Stop after this many windows; by default all.")
    ] = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    device: options.Device = "auto",
    threads: options.Threads = 0,
    ignore_memory: options.IgnoreMemory = False,
) -> None:
    """Measure how well a model predicts a text: perplexity, and how far it is from another model.

    The windows are those of llama-perplexity, so that its figures can be compared with these.
    """
    from . import evaluate as command
    from .opening import use_device, use_threads
    from .prompt import read_text

    model = options.named_model(context, name, model)
    path = registry.resolve(model)
    reference = None if against is None else registry.resolve(against)
    protocol = command.Protocol(read_text(text, "text"), window, stride, chunks)
    use_device(device)
    use_threads(threads, quiet=quiet)
    result = command.run(path, reference, protocol, ignore_memory=ignore_memory, quiet=quiet)
    command.show(model or "", against, protocol, result, as_json=as_json)
