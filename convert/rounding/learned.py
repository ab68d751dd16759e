"""What mlx-lm's methods can do and take, checked before anything is written; imports nothing of mlx-lm."""

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx

from mistral_mlx.convert.plan.choice import AFFINE, DEFAULT_BITS, DEFAULT_GROUP_SIZE, SMALLEST_GROUP, Choice
from mistral_mlx.convert.plan.plan import Plan
from mistral_mlx.convert.plan.request import Request
from mistral_mlx.convert.sources.weights import is_norm
from mistral_mlx.errors import OptionError, either

from .inputs import N_WINDOWS, calibration_windows

AWQ, GPTQ, DWQ = LEARNED = ("awq", "gptq", "dwq")
BITS = {AWQ: (2, 3, 4, 5, 6, 8), GPTQ: (2, 4, 8), DWQ: (2, 3, 4, 5, 6)}  # 8 bits have nothing that DWQ would train
WINDOWS = {AWQ: N_WINDOWS, GPTQ: N_WINDOWS, DWQ: 256}  # DWQ makes a step for each
COSTS = {AWQ: (256, 60), GPTQ: (1792, 20), DWQ: (1792, 80)}  # tokens, seconds on one core (AVX-512), measured


@dataclass(frozen=True)
class Learned:
    """A method, how it packs, and what it learns from."""

    method: str
    bits: int
    group_size: int
    samples: Sequence[Sequence[int]]  # of ids, all of the same length

    @property
    def note(self) -> str:
        """What is said of the result."""
        tokens = sum(map(len, self.samples))
        return f"quantized by mlx-lm's {self.method.upper()}, which learned from {tokens:,} tokens"


def is_learned(request: Request) -> bool:
    """Whether mlx-lm is to pack the weights. Raises OptionError for what its method cannot do."""
    method, choice = request.method, request.choice
    if method is None or method not in LEARNED:
        return False
    bits = choice.bits or DEFAULT_BITS
    if bits not in BITS[method]:
        raise OptionError(f"method {method} makes {either(BITS[method])} bits, not {bits}; choose one of these")
    if choice.mode not in (None, AFFINE) or choice != Choice(choice.bits, choice.group_size, choice.mode):
        raise OptionError(
            f"method {method} takes bits and group_size alone; leave out mode, recipe, rules, target_bpw and dequantize"
        )
    if request.calibrate is None:
        raise OptionError(f"method {method} learns from a text of the kind the model will read; give --calibrate")
    if request.dry_run:
        raise OptionError(f"what method {method} makes is known when it is made; leave out --dry-run")
    return True


def make_learned(plan: Plan, request: Request) -> Learned:
    """Return what mlx-lm is to do to the plain weights of `plan`, the text read; see `is_learned`.

    Raises OptionError if the text or the group size is not usable, ModelError if the source has no tokenizer.
    """
    method, text, choice = request.method, request.calibrate, request.choice
    assert method is not None and text is not None
    if method == AWQ and plan.source.args.n_experts:
        raise OptionError("mlx-lm's awq knows no mixture of experts; leave out method, or choose gptq or dwq")
    group_size = _group_size(plan, method, choice.group_size)
    windows = calibration_windows(plan.source, text, limit=WINDOWS[method])
    return Learned(method, choice.bits or DEFAULT_BITS, group_size, [window.ids for window in windows])


def cpu_remark(method: str | None) -> str | None:
    """Return what to expect of `method` where there is no GPU; None if there is one, or nothing to be said."""
    if method not in LEARNED or mx.default_device().type != mx.DeviceType.cpu:
        return None
    tokens, seconds = COSTS[method]
    return (
        f"mlx-lm's {method.upper()} is made for a GPU; without one it takes about {seconds} s of processor time for "
        f"15M weights and {tokens:,} tokens of text, and for more of them in proportion"
    )


def _group_size(plan: Plan, method: str, asked: int | None) -> int:
    """Return the group size asked for, or one that every weight can have, as mlx-lm keeps none unpacked."""
    matrices = [step.tensor for step in plan.steps if not is_norm(step.tensor)]
    for size in (asked,) if asked else (DEFAULT_GROUP_SIZE, SMALLEST_GROUP):
        odd = [tensor for tensor in matrices if tensor.columns % max(size, SMALLEST_GROUP)]
        if not odd:
            return size
    raise OptionError(
        f"method {method} packs every weight, but {odd[0].path} has {odd[0].columns} columns, no multiple of the group "
        f"size {size}; choose another group size or method"
    )
