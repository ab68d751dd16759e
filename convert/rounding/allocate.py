"""Which bits and group size each weight gets so that a model has a size and loses least.

What a weight loses is taken to grow with its squared rounding error, `sensitivity` saying how much the error of a
probe costs. Bits are given a step at a time, where a byte saves most.
"""

import heapq
import math
from collections.abc import Mapping
from dataclasses import replace

from mistral_mlx import kernels
from mistral_mlx.convert.plan.choice import AFFINE, Choice
from mistral_mlx.convert.plan.plan import Plan, with_packings
from mistral_mlx.convert.plan.step import Step
from mistral_mlx.errors import OptionError
from mistral_mlx.model.packing import MODES, Packing

from .methods import COMPENSATE, NEAREST, SEARCH, Rounding
from .sensitivity import PROBE

SAMPLE_ROWS = 64  # of a weight, by which its errors are known
# Of the error of nearest rounding, what is left of the cost in nats: measured on stories15M at 4 bits in groups of 32.
LEFT = {NEAREST: 1.0, SEARCH: 0.6, COMPENSATE: 0.15}

Options = list[tuple[int, float, Packing]]  # (bytes, cost, how)


def allocate(plan: Plan, choice: Choice, rounding: Rounding, costs: Mapping[str, float]) -> Plan:
    """Return `plan` with at most the bits a weight that `choice` names.

    `costs` are those of a probe by module, as `sensitivities` returns them.

    The result takes at most `target_bpw`, and no single upgrade would still fit.

    Raises OptionError if even the smallest packings take more, or nothing may be packed.
    """
    target = choice.target_bpw
    assert target is not None
    free = [step for step in plan.steps if step.packing and choice.rule(step.path) is None]
    ways = {step.path: _hull(_options(step, choice, rounding, costs)) for step in free}
    budget = math.floor(target * plan.parameters / 8) - plan.nbytes + sum(_nbytes(s, s.packing) for s in free)
    least = sum(options[0][0] for options in ways.values())
    if not ways or least > budget:
        smallest = (plan.nbytes - sum(_nbytes(s, s.packing) for s in free) + least) * 8 / plan.parameters
        raise OptionError(f"target_bpw is {target:g}; this model takes at least {math.ceil(smallest * 100) / 100:.2f}")
    return with_packings(plan, _spend(ways, budget - least))


def _spend(ways: dict[str, Options], budget: int) -> dict[str, Packing]:
    """Return the packing of each weight after spending at most `budget` bytes on more than the smallest."""
    places = dict.fromkeys(ways, 0)
    heap = [(_slope(options, 0), path) for path, options in ways.items() if len(options) > 1]
    heapq.heapify(heap)
    while heap:
        _, path = heapq.heappop(heap)
        options, place = ways[path], places[path]
        price = options[place + 1][0] - options[place][0]
        if price > budget:
            continue  # something smaller may still fit
        budget -= price
        places[path] = place + 1
        if place + 2 < len(options):
            heapq.heappush(heap, (_slope(options, place + 1), path))
    return {path: options[places[path]][2] for path, options in ways.items()}


def _slope(options: Options, place: int) -> float:
    """Return what the cost changes by for each byte of the next step: the most negative is the best."""
    (nbytes, cost, _), (more, less, _) = options[place : place + 2]
    return (less - cost) / (more - nbytes)


def _hull(options: Options) -> Options:
    """Return the options in order of size, without those that a mixture of two others beats."""
    hull: Options = []
    for option in sorted(options):
        if hull and (option[0] == hull[-1][0] or option[1] >= hull[-1][1]):
            continue
        while len(hull) > 1 and _slope([hull[-2], option], 0) <= _slope(hull[-2:], 0):
            hull.pop()
        hull.append(option)
    return hull


def _options(step: Step, choice: Choice, rounding: Rounding, costs: Mapping[str, float]) -> Options:
    numbers, sizes = MODES[AFFINE]
    groups = [size for size in sizes if step.tensor.columns % size == 0 and choice.group_size in (None, size)]
    ways = [Packing(bits, group) for group in groups for bits in numbers]
    errors = _errors(step, [PROBE, *ways])
    compensates = step.compensate and step.path != "model.embed_tokens"
    left = LEFT[rounding.method if compensates or not step.compensate else SEARCH]
    weight = costs[step.path] / (errors[0] or 1.0) * left
    return [(_nbytes(step, way), weight * error, way) for way, error in zip(ways, errors[1:], strict=True)]


def _errors(step: Step, ways: list[Packing]) -> list[float]:
    """Return the squared relative error of the first rows for each packing."""
    weights = next(step.tensor.blocks()).weights()
    rows, found = weights.raw[:SAMPLE_ROWS], []
    for bits, group_size, _ in ways:
        packed = kernels.quantize(rows, weights.dtype, step.dtype, group_size=group_size, bits=bits)
        error = packed.error / packed.norm if packed.norm else 0.0
        found.append(error if math.isfinite(error) else 0.0)
    return found


def _nbytes(step: Step, packing: Packing | None) -> int:
    return sum(output.nbytes for output in replace(step, packing=packing).outputs)
