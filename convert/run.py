"""The conversion from beginning to end: a checkpoint becomes an MLX model folder. It never prints."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from shutil import disk_usage
from typing import Literal

import mlx.core as mx

from mistral_mlx import kernels
from mistral_mlx.convert.files.staging import check_space, check_target, staged
from mistral_mlx.convert.plan.choice import make_choice
from mistral_mlx.convert.plan.outlook import usual_choices
from mistral_mlx.convert.plan.request import Request
from mistral_mlx.convert.rounding.job import make_job
from mistral_mlx.convert.sources.adapters.adapter import with_adapter
from mistral_mlx.convert.sources.open import open_source
from mistral_mlx.convert.sources.tokenizer_files import is_vocabulary
from mistral_mlx.convert.verify.verify import Verification, verification_windows, verify
from mistral_mlx.convert.write.target import write
from mistral_mlx.progress import Progress

from .report import Report

CACHE_NBYTES = 64 * 1024 * 1024  # with none at all, asking the system for memory takes a third of the time


def convert(
    source: str | PathLike[str],
    target: str | PathLike[str],
    *,
    bits: int | None = None,
    group_size: int | None = None,
    mode: str | None = None,
    recipe: str | None = None,
    rules: Sequence[str] = (),
    dtype: str | None = None,
    dequantize: bool = False,
    adapter: str | PathLike[str] | None = None,
    calibrate: str | PathLike[str] | None = None,
    method: str | None = None,
    target_bpw: float | None = None,
    verify_on: str | PathLike[str] | Literal[True] | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
    allow_nonfinite: bool = False,
    progress: Progress | None = None,
    on_written: Callable[[], object] | None = None,
) -> Report:
    """Convert the checkpoint `source` into the MLX model folder `target`.

    `source` is a folder of safetensors, in Hugging Face's layout or Mistral's own, or a GGUF file of the llama family.
    Weights are packed to `bits` (4) in groups of `group_size` (64), or in one of MLX's float modes; a `recipe` of
    mlx-lm or `rules` such as ``lm_head=8:32`` pack some of them otherwise. What is quantized already is carried over
    without loss where none of these speaks of it; with `dequantize` it is unpacked, and nothing is packed. The LoRA or
    DoRA `adapter`, a folder as PEFT or mlx-lm writes it, is merged before that. `dtype` is that of everything not
    packed, by default the source's own.

    `method` is how weights are rounded: "nearest" as `mx.quantize` does, "search" for scales that lose less, the
    default with `target_bpw`, or "compensate" for errors that make up for one another on the text in the file
    `calibrate`, the default if there is one. With "awq", "gptq" and "dwq" mlx-lm does it, learning from that text,
    in a process of its own that holds the whole model. With `target_bpw` bits and group sizes are chosen so that a
    weight takes at most so many bits and least is lost. `verify_on` is a text, or True for one of our own, on which
    the result is compared with the source.

    `progress` is called with a tensor's name, the bytes read so far and the bytes there are. `on_written` is called as
    soon as the target is in place, before it is verified; it must not raise.

    Raises OptionError for a bad argument, ModelError for a source that cannot be used, and ConversionError for
    everything that keeps the target from being written; then the target is as it was before. An error of the
    comparison does not undo the conversion: it is `unverified` in the report.
    """
    choice = make_choice(
        bits=bits,
        group_size=group_size,
        mode=mode,
        recipe=recipe,
        rules=rules,
        dequantize=dequantize,
        target_bpw=target_bpw,
    )
    request = Request(
        source=source,
        target=target,
        choice=choice,
        dtype=dtype,
        adapter=adapter,
        method=method,
        calibrate=None if calibrate is None else Path(calibrate),
        verify_on=True if verify_on is True else Path(verify_on) if verify_on else None,
        overwrite=overwrite,
        dry_run=dry_run,
        allow_nonfinite=allow_nonfinite,
    )
    return carry_out(request, progress, on_written)


@kernels.exactly()  # the errors of weights are measured; rounded activations would add their own
def carry_out(
    request: Request, progress: Progress | None = None, on_written: Callable[[], object] | None = None
) -> Report:
    """Do what `request` asks for; see `convert`."""
    started = time.monotonic()
    place = check_target(request.target, Path(request.source), overwrite=request.overwrite)
    opened = open_source(request.source)
    if request.adapter is not None:
        opened = with_adapter(opened, request.adapter)
    cut = verification_windows(opened, request.verify_on) if request.verify_on else None
    with _small_cache():
        job = make_job(opened, request, progress)
        plan, errors, free = job.plan, dict[str, float](), disk_usage(place.parent).free
        if not request.dry_run:
            check_space(job.needed_nbytes, free, place.parent)
            with staged(place, overwrite=request.overwrite, on_written=on_written) as folder:
                plan, errors = write(job, folder, progress)
    verified = verify(opened, place, cut, progress) if cut and not request.dry_run else Verification()
    return Report(
        source=str(request.source),
        target=str(request.target),
        source_bytes=plan.source.nbytes,
        target_bytes=plan.nbytes,
        bits_per_weight=plan.nbytes * 8 / plan.parameters,
        parameters=plan.parameters,
        kept=[(step.tensor.name, step.reason) for step in plan.steps if step.reason],
        errors=sorted(errors.items(), key=lambda item: -item[1]),
        tokenizer=any(is_vocabulary(name) for name in plan.source.files),
        notes=[*plan.notes, *([verified.warning] if verified.warning else [])],
        needed_bytes=job.needed_nbytes,
        free_bytes=free,
        dry_run=request.dry_run,
        verified=verified.figures,
        verdict=verified.verdict,
        unverified=verified.problem,
        seconds=time.monotonic() - started,
        choices=usual_choices(opened, request.dtype) if request.dry_run else [],
    )


@contextmanager
def _small_cache() -> Iterator[None]:
    """Let MLX keep the buffers of a few blocks, which come again and again, and no more than that."""
    limit = mx.set_cache_limit(CACHE_NBYTES)
    try:
        yield
    finally:
        mx.set_cache_limit(limit)
        mx.clear_cache()
