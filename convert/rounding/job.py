"""A conversion decided to the end, before a byte of the target is written."""

from dataclasses import dataclass

from mistral_mlx.convert.files.staging import RESERVE_NBYTES
from mistral_mlx.convert.plan.choice import Choice, make_choice
from mistral_mlx.convert.plan.plan import Plan, make_plan
from mistral_mlx.convert.plan.request import Request
from mistral_mlx.convert.sources.source import Source
from mistral_mlx.progress import Progress

from .allocate import allocate
from .learned import Learned, is_learned, make_learned
from .methods import Rounding, make_rounding
from .sensitivity import sensitivities, usual_sensitivities


@dataclass(frozen=True)
class Job:
    """What becomes of every tensor, how it is rounded, and whether mlx-lm does that."""

    plan: Plan
    rounding: Rounding
    learned: Learned | None

    @property
    def needed_nbytes(self) -> int:
        """The bytes on the disk that are needed at the same time."""
        files = self.plan.source.files.values()
        small = sum(len(content) if isinstance(content, bytes) else content.stat().st_size for content in files)
        return (self.plan.nbytes + small + RESERVE_NBYTES) * (2 if self.learned else 1)


def make_job(source: Source, request: Request, progress: Progress | None) -> Job:
    """Decide on everything; bits that are to be measured on a text are.

    Raises OptionError, ModelError or ConversionError if it cannot be done.
    """
    choice, allow_nonfinite = request.choice, request.allow_nonfinite
    if is_learned(request):
        plain = make_choice(dequantize=True)  # mlx-lm is given a plain copy
        plan = make_plan(source, plain, request.dtype, allow_nonfinite=allow_nonfinite)
        return Job(plan, Rounding(), make_learned(plan, request))
    rounding = make_rounding(source, request)
    plan = rounding.applied(make_plan(source, choice, request.dtype, allow_nonfinite=allow_nonfinite))
    return Job(plan if choice.target_bpw is None else _allocated(plan, choice, rounding, progress), rounding, None)


def _allocated(plan: Plan, choice: Choice, rounding: Rounding, progress: Progress | None) -> Plan:
    """Return `plan` with the packings that fit the choice's bits per weight best."""
    total = sum(step.tensor.nbytes for step in plan.steps)

    def on_block(n: int, of: int) -> None:
        if progress:
            progress(f"tried block {n} of {of}", 0, total)

    if rounding.texts:
        return allocate(plan, choice, rounding, sensitivities(plan.source, rounding.texts, on_block))
    return allocate(plan, choice, rounding, usual_sensitivities(plan.source.args))
