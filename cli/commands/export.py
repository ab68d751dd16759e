"""The options of ``export``; heavy imports are inside."""

from typing import Annotated

import typer

from mistral_mlx.cli.models import registry
from mistral_mlx.cli.options import shared
from mistral_mlx.cli.terminal.notes import Notes
from mistral_mlx.cli.terminal.signals import whole_or_nothing
from mistral_mlx.errors import OptionError

EXAMPLES = """\
mistral-mlx export demo demo.gguf
mistral-mlx export ~/models/Mistral-7B mistral.gguf --outtype q8_0
"""


def export(
    context: typer.Context,
    name: shared.ModelName = None,
    target: Annotated[str | None, typer.Argument(metavar="FILE", help="The GGUF file to write.")] = None,
    model: shared.TypedModel = None,
    outtype: Annotated[
        str,
        shared.weights_option(
            metavar="auto|f32|f16|bf16|q8_0|q4_1",
            help="How matrices are stored; auto copies packed ones without loss where GGUF can store them.",
        ),
    ] = "auto",
    overwrite: shared.Overwrite = False,
    as_json: shared.Json = False,
    quiet: shared.Quiet = False,
) -> None:
    """Write a model as a GGUF file for llama.cpp.

    Programs built on llama.cpp read it, too. Weights packed to 2, 3, 4 or 5 bits, and to 8 bits by convert from a GGUF
    file, are the very same in it.
    """
    from mistral_mlx.cli.reports import export as command
    from mistral_mlx.convert.export.gguf_export import export_gguf

    model, target = shared.model_and_target(context, name, target, model)
    path = registry.resolve(model)
    if target is None:
        raise OptionError("which file? Give the GGUF file to write")
    notes = Notes(quiet=quiet)
    with whole_or_nothing(), notes.progress("bytes") as progress:
        report = export_gguf(path, target, outtype=outtype, overwrite=overwrite, progress=progress)
    command.show(report, notes, as_json=as_json)
