"""Writing what was decided: the weights in the order their rounding wants, and the small files beside them."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from shutil import copyfile, rmtree

from mistral_mlx.convert.files.safetensors_writer import (
    SHARD_NBYTES,
    ShardWriter,
    config_bytes,
    split_into_shards,
    sync_file,
    write_file,
)
from mistral_mlx.convert.plan.plan import Plan, with_packed
from mistral_mlx.convert.rounding.job import Job
from mistral_mlx.convert.rounding.learned import Learned
from mistral_mlx.convert.rounding.methods import Rounding
from mistral_mlx.convert.sources.open import open_source
from mistral_mlx.progress import Progress

from .mlx_lm import PLAIN, run_mlx_lm
from .quantize import run_step

WORK = "work"  # in the folder that becomes the target: what mlx-lm reads and makes


def write(job: Job, folder: Path, progress: Progress | None) -> tuple[Plan, dict[str, float]]:
    """Write everything into `folder`; return the plan as it was carried out, and the error of what was quantized."""
    plan = job.plan
    if job.learned:
        plan = _learned(plan, job.learned, folder / WORK, progress)
    errors = _write_weights(plan, job.rounding, folder, progress)
    _write_files(plan, folder)
    if job.learned:
        rmtree(folder / WORK)
    return plan, errors


def _learned(plan: Plan, learned: Learned, work: Path, progress: Progress | None) -> Plan:
    """Return the plan to take over what mlx-lm makes of the plain weights of `plan`, in the new folder `work`."""
    plain = work / PLAIN
    plain.mkdir(parents=True)
    _write_weights(plan, Rounding(), plain, progress)
    write_file(plain / "config.json", config_bytes(plan.config))
    packed = run_mlx_lm(learned, work, progress)
    rmtree(plain)
    taken = with_packed(plan, open_source(packed))
    return replace(taken, notes=(*taken.notes, learned.note))


def _write_weights(plan: Plan, rounding: Rounding, folder: Path, progress: Progress | None) -> dict[str, float]:
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
                error = run_step(step, writer, on_block=on_block, inputs=inputs)
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
