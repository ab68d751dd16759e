"""The options of ``convert``; heavy imports are inside."""

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from mistral_mlx.cli.models import registry
from mistral_mlx.cli.options import shared
from mistral_mlx.cli.statuses import Status
from mistral_mlx.cli.terminal.notes import Notes
from mistral_mlx.cli.terminal.signals import NOTHING_LEFT, uninterrupted, whole_or_nothing
from mistral_mlx.errors import MistralMLXError, OptionError

EXAMPLES = """\
mistral-mlx convert ~/models/Mistral-7B-Instruct-v0.3
mistral-mlx convert mistralai/Mistral-7B-Instruct-v0.3 --name mistral
mistral-mlx convert model.Q4_K_M.gguf mistral-8bit --bits 8
mistral-mlx convert ~/models/Mistral-7B --target-bpw 4.8 --calibrate my.txt
mistral-mlx convert mistral-8bit mistral-plain --dequantize --dtype bfloat16
"""
WEIGHTS = ("bits", "group_size", "mode", "recipe", "target_bpw", "dequantize", "dtype")


def convert(
    context: typer.Context,
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="SOURCE",
            autocompletion=registry.model_names,
            help="A folder (Hugging Face's or Mistral's layout, AWQ, GPTQ, FP8, MLX), a GGUF file, or a name.",
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="[TARGET]", help="The folder to write; by default next to the source, or here if that is a name."
        ),
    ] = None,
    model: shared.TypedModel = None,
    bits: Annotated[
        int | None, shared.weights_option(metavar="2|3|4|5|6|8", help="Bits per weight; 4 by default.")
    ] = None,
    group_size: Annotated[
        int | None, shared.weights_option(metavar="32|64|128", help="Weights that share a scale; 64 by default.")
    ] = None,
    mode: Annotated[
        str | None,
        shared.weights_option(metavar="affine|mxfp4|mxfp8|nvfp4", help="How numbers are packed; affine by default."),
    ] = None,
    recipe: Annotated[
        str | None,
        shared.weights_option(
            metavar="NAME",
            help="Few bits for most weights and more for sensitive ones: "
            "mixed_2_6, mixed_3_4, mixed_3_6 or mixed_4_6, as in mlx-lm.",
        ),
    ] = None,
    rule: Annotated[
        list[str] | None,
        shared.weights_option(
            metavar="REGEX=BITS[:GROUP]",
            help="Other bits for modules whose name matches, or none (=none); may be repeated, the last match wins.",
        ),
    ] = None,
    target_bpw: Annotated[
        float | None,
        shared.weights_option(
            metavar="BITS", help="Bits per weight of the whole model; bits and groups are chosen for it."
        ),
    ] = None,
    method: Annotated[
        str | None,
        shared.weights_option(
            metavar="nearest|search|compensate|awq|gptq|dwq",
            help="How weights are rounded; nearest by default, search with --target-bpw, compensate with --calibrate; "
            "the last three by mlx-lm.",
        ),
    ] = None,
    calibrate: Annotated[
        Path | None,
        shared.weights_option(
            metavar="TEXT",
            help="Choose roundings that change predictions least on this text; take one like your prompts.",
        ),
    ] = None,
    dtype: Annotated[
        str | None,
        shared.weights_option(
            metavar="float16|bfloat16|float32",
            help="Dtype of everything that is not packed; by default that of the source.",
        ),
    ] = None,
    dequantize: Annotated[
        bool, shared.weights_option("--dequantize", help="Unpack all packed weights of the source, and pack nothing.")
    ] = False,
    adapter: Annotated[
        Path | None,
        shared.weights_option(
            metavar="DIR", help="Merge this LoRA or DoRA adapter, a folder as PEFT or mlx-lm writes it."
        ),
    ] = None,
    verify: Annotated[
        bool,
        shared.weights_option(
            "--verify", help="Compare the result with the source on a text, and print what was lost."
        ),
    ] = False,
    verify_text: Annotated[
        Path | None,
        shared.weights_option(metavar="FILE", help="Verify on this text instead of a short built-in one."),
    ] = None,
    name: Annotated[
        str | None,
        shared.output_option(
            "--name", metavar="NAME", allow_from_autoenv=False, help="Register the result under this name."
        ),
    ] = None,
    overwrite: shared.Overwrite = False,
    dry_run: Annotated[
        bool,
        shared.output_option("--dry-run", help="Print what would be written and the alternatives; write nothing."),
    ] = False,
    allow_nonfinite: Annotated[
        bool, shared.weights_option("--allow-nonfinite", help="Also convert weights that are NaN or infinite.")
    ] = False,
    as_json: shared.Json = False,
    quiet: shared.Quiet = False,
) -> None:
    """Quantize a checkpoint into an MLX model folder.

    A GGUF file that is quantized already is carried over, without loss where MLX has its form, unless an option asks
    for other bits. An MLX folder that is quantized already is quantized again by these, and unpacked by --dequantize.
    """
    from mistral_mlx.cli.reports import convert as command
    from mistral_mlx.convert import convert as run
    from mistral_mlx.convert.rounding.learned import cpu_remark

    source, target = shared.model_and_target(context, source, target, model)
    if source is None:
        raise OptionError("which model? Give a folder, a GGUF file or a name to convert")
    path = registry.located(source)
    named = None if registry.is_path(source) else source
    how = recipe or mode or _size(bits, target_bpw)
    place = Path(target).expanduser() if target else command.default_target(path, how, named=named)
    if name is not None:
        registry.check_free(name, place)  # not only after an hour
    notes = Notes(quiet=quiet)
    before = _identity(place)

    def settled() -> str:
        """Register the target if it is written, and say whether it is."""
        if _identity(place) in (None, before):
            return NOTHING_LEFT
        if name is not None:
            with uninterrupted(), suppress(MistralMLXError, OSError):  # tried again, and said, below the report
                registry.register(name, place, takes_over=False)
        stopped = ", only its verification was stopped" if verify or verify_text else ""
        return f"{command.spelled(place)} is written{stopped}"

    with whole_or_nothing(settled), notes.progress("bytes") as progress:
        report = run(
            path,
            place,
            bits=bits,
            group_size=group_size,
            mode=mode,
            recipe=recipe,
            rules=rule or (),
            target_bpw=target_bpw,
            method=method,
            calibrate=calibrate,
            dtype=dtype,
            dequantize=dequantize,
            adapter=adapter,
            verify_on=verify_text or (True if verify else None),
            overwrite=overwrite,
            dry_run=dry_run,
            allow_nonfinite=allow_nonfinite,
            progress=command.remarking(cpu_remark(method), notes, progress),
            on_written=settled,
        )
    command.show(report, notes, asked=_asked(context), as_json=as_json)
    if name is not None and not dry_run:
        registry.register(name, place, takes_over=False)
    if report.unverified is not None:
        raise typer.Exit(Status.UNVERIFIED)
    if not dry_run:
        notes.say(f"try it: mistral-mlx chat -m {command.spelled(name or place)}")


def _asked(context: typer.Context) -> str:
    """Return the options that decide how weights are stored, as they are typed."""
    given = {key: context.params[key] for key in WEIGHTS if context.params[key]}
    return " ".join(
        f"--{key.replace('_', '-')}" + ("" if value is True else f" {value}") for key, value in given.items()
    )


def _identity(place: Path) -> tuple[int, int] | None:
    """Return what tells a folder from one that is put into its place; None if there is none."""
    with suppress(OSError):
        found = place.lstat()
        return found.st_dev, found.st_ino
    return None


def _size(bits: int | None, target_bpw: float | None) -> str:
    return f"{target_bpw:g}bpw" if target_bpw else f"{bits}bit" if bits else ""
