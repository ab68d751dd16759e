"""The options of ``convert``; heavy imports stand inside."""

from pathlib import Path
from typing import Annotated

import typer

from mistral_mlx.cli.options import shared


def convert(
    source: Annotated[
        Path, typer.Argument(help="A folder (Hugging Face's or Mistral's layout, AWQ, GPTQ, FP8, MLX), or a GGUF file.")
    ],
    target: Annotated[Path | None, typer.Argument(help="The folder to write; by default beside the source.")] = None,
    bits: Annotated[int | None, typer.Option(metavar="2|3|4|5|6|8", help="Bits per weight; 4 by default.")] = None,
    group_size: Annotated[
        int | None, typer.Option(metavar="32|64|128", help="Weights that share a scale; 64 by default.")
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option(metavar="affine|mxfp4|mxfp8|nvfp4", help="How numbers are packed; affine by default."),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Few bits, and more where they count: mixed_2_6, mixed_3_4, mixed_3_6 or mixed_4_6, as in mlx-lm.",
        ),
    ] = None,
    rule: Annotated[
        list[str] | None,
        typer.Option(
            metavar="REGEX=BITS[:GROUP]",
            help="Pack modules whose name matches otherwise, or keep them (=none); may be repeated, the last one wins.",
        ),
    ] = None,
    target_bpw: Annotated[
        float | None,
        typer.Option(metavar="BITS", help="Bits per weight of the whole model; bits and groups are chosen for it."),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            metavar="nearest|search|compensate|awq|gptq|dwq",
            help="How weights are rounded; nearest by default, search with --target-bpw, compensate with --calibrate; "
            "the last three by mlx-lm.",
        ),
    ] = None,
    calibrate: Annotated[
        Path | None,
        typer.Option(metavar="TEXT", help="A text of the kind the model will read, to lose least there."),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            metavar="float16|bfloat16|float32", help="Dtype of all that is not packed; by default the source's."
        ),
    ] = None,
    dequantize: Annotated[
        bool, typer.Option("--dequantize", help="Pack nothing, and unpack what the source has packed.")
    ] = False,
    adapter: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Merge this LoRA or DoRA adapter, a folder as PEFT or mlx-lm writes it."),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare the result with the source on a text, and say what was lost.")
    ] = False,
    verify_text: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Verify on this text, and not on a short one of our own.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the target if it exists.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be written and what else there is; write nothing.")
    ] = False,
    allow_nonfinite: Annotated[
        bool, typer.Option("--allow-nonfinite", help="Convert weights that are NaN or infinite, too.")
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

    with command.progress_bar(quiet=quiet) as progress:
        report = run(
            source,
            target or command.default_target(source, recipe or mode or _size(bits, target_bpw)),
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
            force=force,
            dry_run=dry_run,
            allow_nonfinite=allow_nonfinite,
            progress=command.remarking(None if quiet else cpu_remark(method), progress),
        )
    command.show(report, as_json=as_json, quiet=quiet)


def _size(bits: int | None, target_bpw: float | None) -> str:
    return f"{target_bpw:g}bpw" if target_bpw else f"{bits}bit" if bits else ""
