"""A conversion decided to the end, before a byte of the target is written."""

from dataclasses import dataclass
from os import PathLike

from mistral_mlx.convert.files.staging import RESERVE_NBYTES
from mistral_mlx.convert.plan.choice import Choice, make_choice
from mistral_mlx.convert.plan.plan import Plan, make_plan
from mistral_mlx.convert.progress import Progress
from mistral_mlx.convert.sources.source import Source
from mistral_mlx.model.args import ModelArgs

from .allocate import allocate
from .learned import Learned, check_learned, make_learned
from .methods import NEAREST, SEARCH, Rounding, make_rounding
from .sensitivity import sensitivities, usual_sensitivities

StrPath = str | PathLike[str]


@dataclass(frozen=True)
class Job:
    """What is made of every tensor, how it is rounded, and whether mlx-lm does that."""

    plan: Plan
    rounding: Rounding
    learned: Learned | None

    @property
    def needed_nbytes(self) -> int:
        """The bytes that are needed on the disk at the same time."""
        files = self.plan.source.files.values()
        small = sum(len(content) if isinstance(content, bytes) else content.stat().st_size for content in files)
        return (self.plan.nbytes + small + RESERVE_NBYTES) * (2 if self.learned else 1)


def make_job(
    source: Source,
    choice: Choice,
    *,
    dtype: str | None,
    method: str | None,
    calibrate: StrPath | None,
    dry_run: bool,
    progress: Progress | None,
) -> Job:
    """Decide on everything; bits that are to be measured on a text are.

    Raises OptionError, ModelError or ConversionError if it cannot be done.
    """
    learns = check_learned(method, choice, calibrate, dry_run=dry_run)
    if learns:
        plan = make_plan(source, make_choice(dequantize=True), dtype)  # mlx-lm is given a plain copy
        return Job(plan, Rounding(), make_learned(plan, choice, learns))
    usual = NEAREST if choice.target_bpw is None else SEARCH
    rounding = make_rounding(source, method, calibrate, usual=usual)
    plan = rounding.applied(make_plan(source, choice, dtype))
    return Job(plan if choice.target_bpw is None else _allocated(plan, choice, rounding, progress), rounding, None)


def _allocated(plan: Plan, choice: Choice, rounding: Rounding, progress: Progress | None) -> Plan:
    """Return `plan` with the packings that fit the choice's bits per weight best."""
    total = sum(step.tensor.nbytes for step in plan.steps)

    def on_block(n: int, of: int) -> None:
        if progress:
            progress(f"tried block {n} of {of}", 0, total)

    if rounding.texts:
        return allocate(plan, choice, rounding, sensitivities(plan.source, rounding.texts, on_block))
    return allocate(plan, choice, rounding, usual_sensitivities(ModelArgs.from_config(plan.source.config)))
