"""`multipleOf`: numbers told by their last digits, or listed one by one between two bounds.

Judges divide floats: 0.07 / 0.01 is no whole number there. Only what such a division finds whole is written.
"""

import json
import math
from fractions import Fraction

from .document import Place
from .numbers import Bounds, decimals, integers, listed

MAX_STEPS = 1000  # multiples that are listed one by one
PLACES = 4  # last digits that tell a multiple
HALVES = (0.5, 0.25, 0.125)  # floats divide by them without rounding


def is_multiple(number: int | float, step: int | float) -> bool:
    """Say whether every judge finds `number` to be a multiple of `step`: by floats and by decimals."""
    exact = Fraction(repr(number)) % Fraction(repr(step)) == 0
    try:
        quotient = number / step
    except OverflowError:
        return False
    divided = math.isfinite(quotient) and quotient == int(quotient)
    return exact and (divided if isinstance(step, float) else number % step == 0)


def multiples(bounds: Bounds, whole: bool, steps: list[tuple[Place, int | float]]) -> str | None:
    """Return the terminal of the numbers in `bounds` that are multiples of all `steps`; None if there is none.

    Raises OptionError where neither way is possible.
    """
    exact = [Fraction(repr(step)) for _, step in steps]
    common = Fraction(math.lcm(*(f.numerator for f in exact)), math.gcd(*(f.denominator for f in exact)))
    if whole:
        common = Fraction(math.lcm(common.numerator, common.denominator), common.denominator)
    if bounds.low is not None and bounds.high is not None and (bounds.high - bounds.low) / common <= MAX_STEPS:
        expression = listed(_multiples_listed(bounds, common, [step for _, step in steps]))
        return expression and f"/{expression}/"
    if all(step == int(step) for _, step in steps):
        expression, endings = integers(bounds), _endings(common.numerator)
    elif len(steps) == 1 and steps[0][1] in HALVES:
        expression, endings = decimals(bounds), _fractions(float(common))
    else:
        expression, endings = None, None
    if endings is None:
        advice = f"give minimum and maximum, at most {MAX_STEPS:,} steps apart"
        raise steps[0][0].fault(
            f"has 'multipleOf' of {steps[0][1]}, which cannot be guaranteed with bounds that are far apart or missing,",
            advice,
        )
    return expression and f"/{expression}/ & /{endings}/"


def _multiples_listed(bounds: Bounds, common: Fraction, steps: list[int | float]) -> list[str]:
    assert bounds.low is not None and bounds.high is not None
    found = []
    for n in range(math.ceil(bounds.low / common), math.floor(bounds.high / common) + 1):
        written = _decimal(n * common)
        number = json.loads(written)
        if bounds.hold(number) and all(is_multiple(number, step) for step in steps):
            found.append(written)
    return found


def _decimal(number: Fraction) -> str:
    """Return a number whose denominator divides a power of ten as JSON writes it, without an exponent."""
    places = 0
    while (number * 10**places).denominator != 1:
        places += 1
    digits = str(abs(int(number * 10**places))).zfill(places + 1)
    point = len(digits) - places
    return ("-" if number < 0 else "") + digits[:point] + (f".{digits[point:]}" if places else "")


def _endings(step: int) -> str | None:
    """Return the expression of the whole multiples of `step`, if it divides a power of ten."""
    for places in range(PLACES + 1):
        unit = 10**places
        if unit % step == 0:
            ends = "|".join(str(n).zfill(places) for n in range(0, unit, step))
            short = "|".join(str(n) for n in range(0, unit, step))
            return f"-?(?:{short}|[1-9][0-9]*(?:{ends}))"
    return None


def _fractions(step: float) -> str:
    """Return the expression of the decimals that are multiples of a half, a quarter or an eighth."""
    ends = [repr(n * step)[2:] for n in range(int(1 / step))]
    return rf"-?[0-9]*(?:\x{{2e}}(?:{'|'.join(ends)}))?"
