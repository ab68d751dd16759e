"""How weights are rounded, and in which order they are taken: as the model runs, where its inputs are needed for it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from mistral_mlx.convert.plan.choice import AFFINE
from mistral_mlx.convert.plan.plan import Plan
from mistral_mlx.convert.plan.request import Request
from mistral_mlx.convert.plan.step import Step
from mistral_mlx.convert.sources.source import Source
from mistral_mlx.errors import OptionError, shown
from mistral_mlx.measure.evaluation import Window
from mistral_mlx.model.blocks import stacked_path

from .inputs import BlocksDone, Inputs, block_inputs, calibration_windows
from .learned import LEARNED

NEAREST, SEARCH, COMPENSATE = METHODS = ("nearest", "search", "compensate")


@dataclass(frozen=True)
class Rounding:
    """A method, and the windows of the text it is calibrated on, if there is one."""

    method: str = NEAREST
    texts: tuple[Window, ...] = ()

    def applied(self, plan: Plan) -> Plan:
        """Return `plan` whose steps know what was asked for. Raises OptionError if this would change none of them."""
        if self.method == NEAREST:
            return plan
        steps = tuple(self._applied(step) for step in plan.steps)
        if not any(step.search for step in steps):
            raise OptionError(
                f"method {self.method} rounds affine codes, and none are made here; leave out method and calibrate, "
                "or give bits"
            )
        return replace(plan, steps=steps)

    def _applied(self, step: Step) -> Step:
        rounded = step.packing is not None and step.packing.mode == AFFINE and not step.carried
        return replace(step, search=rounded, compensate=rounded and self.method == COMPENSATE)

    def rounds(self, plan: Plan, progress: BlocksDone) -> Iterator[tuple[list[Step], Mapping[str, Inputs]]]:
        """Yield all steps of `plan`, with the inputs of the modules they are about, as far as they are calibrated."""
        left = {step.path: step for step in plan.steps}
        if self.texts and any(step.search for step in plan.steps):
            for inputs in block_inputs(plan.source, self.texts, progress):
                yield [left.pop(path) for path in dict.fromkeys(map(stacked_path, inputs))], inputs
        yield list(left.values()), {}


def make_rounding(source: Source, request: Request) -> Rounding:
    """Return the rounding that `request` asks for, its text read.

    Raises OptionError if options exclude each other or the text is not usable. Raises ModelError if the source has no
    tokenizer.
    """
    method, text = request.method or _usual_method(request), request.calibrate
    if method not in METHODS:
        known = (*METHODS, *LEARNED)
        raise OptionError(f"method is {shown(method)}; {', '.join(known[:-1])} or {known[-1]} is expected")
    if method == COMPENSATE and text is None:
        raise OptionError("method compensate needs a text of the kind the model will read; name one with --calibrate")
    if method == NEAREST and text is not None:
        raise OptionError("method nearest uses no text; leave out --calibrate, or take search or compensate")
    return Rounding(method, () if text is None else tuple(calibration_windows(source, text)))


def _usual_method(request: Request) -> str:
    if request.calibrate is not None:
        return COMPENSATE
    return NEAREST if request.choice.target_bpw is None else SEARCH
