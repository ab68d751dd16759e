"""The converter: a checkpoint in, an MLX model folder out; reads and writes files, and never prints."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from os import PathLike
from pathlib import Path
from shutil import copyfile, disk_usage, rmtree
from typing import Literal

import mlx.core as mx

from mistral_mlx.args import ModelArgs

from .adapters.adapter import with_adapter
from .calibration.allocate import allocate
from .calibration.rounding import NEAREST, SEARCH, Rounding, make_rounding
from .calibration.sensitivity import sensitivities, usual_sensitivities
from .checkpoint import open_source
from .choice import Choice, make_choice
from .learned.method import Learned, check_learned, make_learned
from .learned.process import PLAIN, run_mlx_lm
from .outlook import usual_choices
from .plan import Plan, make_plan, with_packed
from .quantize import run_step
from .report import Report
from .staging import RESERVE_NBYTES, check_space, check_target, staged
from .tokenizer_files import is_vocabulary
from .verify import check_text, verify
from .writer import SHARD_NBYTES, ShardWriter, config_bytes, split_into_shards, sync_file, write_file

__all__ = ["Report", "convert"]

WORK = "work"  # in the folder that becomes the target: what mlx-lm reads and makes
CACHE_NBYTES = 64 * 1024 * 1024  # with none at all, asking the system for memory takes a third of the time

Progress = Callable[[str, int, int], None]


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
    force: bool = False,
    dry_run: bool = False,
    allow_nonfinite: bool = False,
    progress: Progress | None = None,
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

    `progress` is called with a tensor's name, the bytes read so far and the bytes there are.

    Raises OptionError for a bad argument, ModelError for a source that cannot be used, and ConversionError for
    everything that keeps the target from being written; then the target is as it was before.
    """
    started = time.monotonic()
    place = check_target(target, Path(source), force=force)
    choice = make_choice(
        bits=bits,
        group_size=group_size,
        mode=mode,
        recipe=recipe,
        rules=rules,
        dequantize=dequantize,
        target_bpw=target_bpw,
    )
    learns = check_learned(method, choice, calibrate, dry_run=dry_run)
    opened = open_source(source)
    plan = make_plan(
        opened if adapter is None else with_adapter(opened, adapter),
        make_choice(dequantize=True) if learns else choice,  # mlx-lm is given a plain copy
        dtype,
    )
    learned = make_learned(plan, choice, learns) if learns else None
    usual = NEAREST if target_bpw is None else SEARCH
    rounding = Rounding() if learned else make_rounding(plan.source, method, calibrate, usual=usual)
    plan = rounding.applied(plan)
    if target_bpw is not None:
        with _small_cache():
            plan = _allocated(plan, choice, rounding, progress)
    text = check_text(plan.source, verify_on) if verify_on else None
    needed, free = _needed_nbytes(plan) * (2 if learned else 1), disk_usage(place.parent).free
    errors: dict[str, float] = {}
    if not dry_run:
        check_space(needed, free, place.parent)
        with _small_cache(), staged(place, force=force) as folder:
            if learned:
                plan = _learned(plan, learned, folder / WORK, allow_nonfinite, progress)
            errors = _write_weights(plan, rounding, folder, allow_nonfinite, progress)
            _write_files(plan, folder)
            if learned:
                rmtree(folder / WORK)
    verified = verify(plan.source, place, text, progress) if text and not dry_run else None
    return Report(
        source=str(source),
        target=str(target),
        source_bytes=plan.source.nbytes,
        target_bytes=plan.nbytes,
        bits_per_weight=plan.nbytes * 8 / plan.parameters,
        parameters=plan.parameters,
        kept=[(step.tensor.name, step.reason) for step in plan.steps if step.reason],
        errors=sorted(errors.items(), key=lambda item: -item[1]),
        tokenizer=any(is_vocabulary(name) for name in plan.source.files),
        notes=list(plan.notes),
        needed_bytes=needed,
        free_bytes=free,
        dry_run=dry_run,
        verified=verified,
        seconds=time.monotonic() - started,
        choices=usual_choices(plan.source) if dry_run else [],
    )


def _learned(plan: Plan, learned: Learned, work: Path, allow_nonfinite: bool, progress: Progress | None) -> Plan:
    """Return the plan to take over what mlx-lm makes of the plain weights of `plan`, in the new folder `work`."""
    plain = work / PLAIN
    plain.mkdir(parents=True)
    _write_weights(plan, Rounding(), plain, allow_nonfinite, progress)
    write_file(plain / "config.json", config_bytes(plan.config))
    packed = run_mlx_lm(learned, work, progress)
    rmtree(plain)
    taken = with_packed(plan, open_source(packed))
    return replace(taken, notes=(*taken.notes, learned.note))


def _allocated(plan: Plan, choice: Choice, rounding: Rounding, progress: Progress | None) -> Plan:
    """Return `plan` with the packings that fit the choice's bits per weight best."""
    total = sum(step.tensor.nbytes for step in plan.steps)

    def on_block(n: int, of: int) -> None:
        if progress:
            progress(f"tried block {n} of {of}", 0, total)

    if rounding.texts:
        return allocate(plan, choice, rounding, sensitivities(plan.source, rounding.texts, on_block))
    return allocate(plan, choice, rounding, usual_sensitivities(ModelArgs.from_config(plan.source.config)))


def _write_weights(
    plan: Plan, rounding: Rounding, folder: Path, allow_nonfinite: bool, progress: Progress | None
) -> dict[str, float]:
    """Write all shards and their index; return the error of each tensor that was quantized."""
    errors: dict[str, float] = {}
    done, total = 0, sum(step.tensor.nbytes for step in plan.steps)
    writer = ShardWriter(folder, split_into_shards(plan.outputs, SHARD_NBYTES))

    def show(name: str, nbytes: int = 0) -> None:
        if progress:
            progress(name, done + nbytes, total)

    try:
        for steps, inputs in rounding.rounds(plan, lambda n, of: show(f"calibrated block {n} of {of}")):
            for step in steps:
                on_block = partial(show, step.tensor.name)
                error = run_step(step, writer, allow_nonfinite=allow_nonfinite, on_block=on_block, inputs=inputs)
                if error is not None:
                    errors[step.tensor.name] = error
                done += step.tensor.nbytes
        writer.finish(plan.parameters)
    finally:
        writer.close()
    return errors


def _write_files(plan: Plan, folder: Path) -> None:
    write_file(folder / "config.json", config_bytes(plan.config))
    for name, content in plan.source.files.items():
        if isinstance(content, bytes):
            write_file(folder / name, content)
        else:
            copyfile(content, folder / name)
            sync_file(folder / name)


def _needed_nbytes(plan: Plan) -> int:
    files = sum(len(c) if isinstance(c, bytes) else c.stat().st_size for c in plan.source.files.values())
    return plan.nbytes + files + RESERVE_NBYTES


@contextmanager
def _small_cache() -> Iterator[None]:
    """Let MLX keep the buffers of a few blocks, which come again and again, and no more than that."""
    limit = mx.set_cache_limit(CACHE_NBYTES)
    try:
        yield
    finally:
        mx.set_cache_limit(limit)
        mx.clear_cache()
