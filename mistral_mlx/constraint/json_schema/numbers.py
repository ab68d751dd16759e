"""Numbers between bounds, as expressions of their digits.

The judge of an answer reads a fraction into a float, which rounds. A bound here therefore lies on a grid of
decimals well inside the schema's: what is written cannot round across it.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

DIGITS = 15  # of a number without bounds: a float keeps so many
PLACES = 15  # behind the point
MOST: int = 10**DIGITS - 1
FARTHEST: int = 10**30  # numbers beyond it are not written


@dataclass(frozen=True)
class Bounds:
    """The numbers from `low` to `high` (None: without end), without an end that is excluded."""

    low: Fraction | None = None
    high: Fraction | None = None
    without_low: bool = False
    without_high: bool = False

    def hold(self, number: int | float) -> bool:
        """Say whether a number lies inside."""
        value = Fraction(number)
        if self.low is not None and (value < self.low or (self.without_low and value == self.low)):
            return False
        return self.high is None or value < self.high or (not self.without_high and value == self.high)

    def are_empty(self, *, whole: bool) -> bool:
        """Say whether no number at all lies inside, or no whole one."""
        if self.low is None or self.high is None:
            return False
        if whole:
            return self.first() > self.last()
        return self.low > self.high or (self.low == self.high and (self.without_low or self.without_high))

    def first(self) -> int:
        """Return the least whole number inside; without a bound, the least that is written."""
        if self.low is None:
            return min(-MOST, (self.last() if self.high is not None else 0) * 10)
        return math.floor(self.low) + 1 if self.without_low else math.ceil(self.low)

    def last(self) -> int:
        """Return the greatest whole number inside; without a bound, the greatest that is written."""
        if self.high is None:
            return max(MOST, (self.first() if self.low is not None else 0) * 10)
        return math.ceil(self.high) - 1 if self.without_high else math.floor(self.high)

    def near(self) -> "Bounds | None":
        """Return the bounds without what is too far to be written; None if nothing is left."""
        low = None if self.low is None else max(self.low, Fraction(-FARTHEST))
        high = None if self.high is None else min(self.high, Fraction(FARTHEST))
        if (low is not None and low >= FARTHEST) or (high is not None and high <= -FARTHEST):
            return None
        return Bounds(low, high, self.without_low, self.without_high)


def joined_bounds(several: Iterable[Bounds]) -> Bounds:
    """Return the bounds that hold where all of `several` do."""
    all_ = list(several)
    low = max((b.low for b in all_ if b.low is not None), default=None)
    high = min((b.high for b in all_ if b.high is not None), default=None)
    without_low = low is not None and any(b.low == low and b.without_low for b in all_)
    without_high = high is not None and any(b.high == high and b.without_high for b in all_)
    return Bounds(low, high, without_low, without_high)


def integers(bounds: Bounds) -> str | None:
    """Return the expression of the whole numbers in `bounds`, without a point; None if there is none."""
    low, high = bounds.first(), bounds.last()
    parts = []
    if low < 0 and high >= low:
        parts.append(f"-{_naturals(max(1, -high), -low)}")
    if high >= max(low, 0):
        parts.append(_naturals(max(low, 0), high))
    return _either(parts) if parts else None


def decimals(bounds: Bounds) -> str | None:
    """Return the expression of the numbers in `bounds`, with or without a fraction; None if there is none."""
    if bounds == Bounds():
        return rf"-?(?:0|[1-9][0-9]{{0,{DIGITS - 1}}})(?:\x{{2e}}[0-9]{{1,{PLACES}}})?(?:[eE][+-]?[0-9]{{1,2}})?"
    low, high = _inside(bounds)
    span = high - low
    places = PLACES
    while span > 0 and span * 10**places < 10**3 and places < 60:
        places += PLACES
    grid = 10**places
    least, most = math.ceil(low * grid), math.floor(high * grid)
    parts = []
    if least < 0 and most >= least:
        parts.append(f"-{_magnitudes(max(1, -most), -least, places)}")
    if most >= max(least, 0):
        parts.append(_magnitudes(max(least, 0), most, places))
    return _either(parts) if parts else None


def listed(texts: Iterable[str]) -> str | None:
    """Return the expression of some numbers as they are written; None if there is none."""
    parts = [text.replace(".", r"\x{2e}").replace("+", r"\x{2b}") for text in dict.fromkeys(texts)]
    return _either(parts) if parts else None


def written(number: int | float) -> str:
    """Return how JSON writes a number: 1.0 and 1 alike."""
    return str(int(number)) if number == int(number) and abs(number) < FARTHEST else repr(number)


def _inside(bounds: Bounds) -> tuple[Fraction, Fraction]:
    """Return floats inside the bounds: a text between them is read as a float between them."""
    low = Fraction(bounds.first()) if bounds.low is None else bounds.low
    high = Fraction(bounds.last()) if bounds.high is None else bounds.high
    below, above = float(high), float(low)
    if below > high or (bounds.without_high and below == high):
        below = math.nextafter(below, -math.inf)
    if above < low or (bounds.without_low and above == low):
        above = math.nextafter(above, math.inf)
    return _shortest(above), _shortest(below)


def _shortest(number: float) -> Fraction:
    """Return the number that `repr` shows: as a bound it is as good, for both are read as the same float."""
    return Fraction(repr(number)) if abs(number) < 2**53 else Fraction(number)


def _naturals(low: int, high: int) -> str:
    """Return the expression of the numbers from `low` to `high`, both at least 0, without leading zeros."""
    parts = []
    if low == 0:
        parts, low = ["0"], 1
    while low <= high:
        least, most = len(str(low)), len(str(high + 1)) - 1
        if low == 10 ** (least - 1) and most >= least:  # all numbers of these lengths
            parts.append(f"[1-9][0-9]{{{least - 1},{most - 1}}}")
            low = 10**most
            continue
        end = min(high, 10**least - 1)
        parts += _same_length(str(low), str(end))
        low = end + 1
    return _either(parts)


def _same_length(low: str, high: str) -> list[str]:
    """Return expressions of the digits from `low` to `high`, which are as long as each other."""
    n = len(low)
    if not n:
        return [""]
    if low == "0" * n and high == "9" * n:
        return [_digits("0", "9") + f"{{{n}}}"]
    if low[0] == high[0]:
        return [low[0] + _either(_same_length(low[1:], high[1:]))]
    first, last, parts = int(low[0]), int(high[0]), []
    if low[1:].strip("0"):
        parts.append(low[0] + _either(_same_length(low[1:], "9" * (n - 1))))
        first += 1
    if high[1:].strip("9"):
        parts.append(high[0] + _either(_same_length("0" * (n - 1), high[1:])))
        last -= 1
    if first <= last:
        parts.append(_digits(str(first), str(last)) + (f"[0-9]{{{n - 1}}}" if n > 1 else ""))
    return parts


def _magnitudes(low: int, high: int, places: int) -> str:
    """Return the expression of the decimals from `low` to `high`, given in units of the last place."""
    grid = 10**places
    (first, from_), (last, to) = divmod(low, grid), divmod(high, grid)
    if first == last:
        return f"{first}{_fraction(from_, to, places)}"
    parts = []
    if from_:
        parts.append(f"{first}{_fraction(from_, grid - 1, places)}")
        first += 1
    if to < grid - 1:
        parts.append(f"{last}{_fraction(0, to, places)}")
        last -= 1
    if first <= last:
        parts.append(f"{_naturals(first, last)}{_fraction(0, grid - 1, places)}")
    return _either(parts)


def _fraction(low: int, high: int, places: int) -> str:
    """Return the expression of a point and the digits from `low` to `high`; without both if `low` is 0."""
    if high == 0:
        return rf"(?:\x{{2e}}0{{1,{places}}})?"
    digits = _either(_padded(str(low).zfill(places), str(high).zfill(places)))
    return rf"\x{{2e}}{digits}" if low else rf"(?:\x{{2e}}{digits})?"


def _padded(low: str, high: str) -> list[str]:
    """Return expressions of one or more digits that lie between two texts once zeros are put behind them."""
    n = len(low)
    zeros = not low.strip("0")
    if zeros and not high.strip("9"):
        return [f"[0-9]{{1,{n}}}"]
    if low[0] == high[0]:
        rest = _either(_padded(low[1:], high[1:])) if n > 1 else None
        return [low[0] + _optional(rest, zeros or not low[1:].strip("0"))]
    first, last, parts = int(low[0]), int(high[0]), []
    if low[1:].strip("0"):
        parts.append(low[0] + _either(_padded(low[1:], "9" * (n - 1))))
        first += 1
    if high[1:].strip("9"):
        parts.append(high[0] + _optional(_either(_padded("0" * (n - 1), high[1:])), True))
        last -= 1
    if first <= last:
        parts.append(_digits(str(first), str(last)) + (f"[0-9]{{0,{n - 1}}}" if n > 1 else ""))
    return parts


def _optional(expression: str | None, optional: bool) -> str:
    return "" if expression is None else f"(?:{expression})?" if optional else expression


def _digits(low: str, high: str) -> str:
    return low if low == high else f"[{low}-{high}]"


def _either(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"(?:{'|'.join(parts)})"
