"""The options of ``eval``; heavy imports are inside."""

from typing import Annotated

import typer

from mistral_mlx.cli.models import registry
from mistral_mlx.cli.options import shared
from mistral_mlx.cli.terminal.notes import Notes

EXAMPLES = """\
mistral-mlx eval -m demo --text wiki.test.raw --chunks 40
mistral-mlx eval mistral-4bit --against mistral-8bit --text wiki.test.raw
"""
CONTEXT = 512  # the engine's, which --help need not import; a test holds them equal


def evaluate(
    context: typer.Context,
    text: Annotated[
        str, shared.evaluation_option(metavar="FILE", help="The text to predict, in UTF-8; - is standard input.")
    ],
    name: shared.ModelName = None,
    model: shared.Model = None,
    against: Annotated[
        str | None,
        shared.evaluation_option(
            metavar="MODEL",
            autocompletion=registry.model_names,
            help="Compare with this reference, for example the same model with more bits.",
        ),
    ] = None,
    length: Annotated[int, shared.evaluation_option("--context", metavar="N", help="Tokens of a window.")] = CONTEXT,
    stride: Annotated[
        int | None,
        shared.evaluation_option(
            metavar="N", help="Begin a window every N tokens and score its last N; by default half a window."
        ),
    ] = None,
    chunks: Annotated[
        int | None, shared.evaluation_option(metavar="N", help="Stop after this many windows; by default all.")
    ] = None,
    as_json: shared.Json = False,
    quiet: shared.Quiet = False,
    device: shared.Device = "auto",
    threads: shared.Threads = 0,
    exact: shared.Exact = True,
    kv_bits: shared.KvBits = shared.KV_BITS,
    window: shared.Window = None,
    sinks: shared.Sinks = shared.SINKS,
    ignore_memory: shared.IgnoreMemory = False,
) -> None:
    """Measure how well a model predicts a text.

    The result is its perplexity, and with --against how far it is from another model. The windows are those of
    llama-perplexity, so that its figures can be compared with these. --window, --sinks and --kv-bits are for the model,
    and not for the one it is compared with: with --against the same model, they are what is measured.
    """
    from mistral_mlx.cli.answers.sources import read_text
    from mistral_mlx.cli.models.opening import use_machine
    from mistral_mlx.cli.reports import evaluate as command
    from mistral_mlx.model.cache_options import CacheOptions

    notes = Notes(quiet=quiet)
    model = shared.chosen_model(shared.named_model(context, name, model), notes)
    path = registry.resolve(model)
    reference = None if against is None else registry.resolve(against)
    protocol = command.Protocol(read_text(text, "text"), length, stride, chunks)
    use_machine(device, threads, notes, exact=exact)
    cache = CacheOptions(window, sinks, kv_bits)
    result = command.run(path, reference, protocol, cache, notes, ignore_memory=ignore_memory)
    command.show(model, against, protocol, cache, result, as_json=as_json)
