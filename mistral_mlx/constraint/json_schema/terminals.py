"""Terminals of the grammar: expressions of Lark, and whether any text fits one."""

from collections.abc import Iterable
from functools import lru_cache

from llguidance import LLMatcher

from mistral_mlx.constraint.limits import SCHEMA_LIMITS, byte_tokenizer

from .alphabet import CHARACTER, literal
from .document import Place

MAX_KEPT = 4000  # characters of a terminal of which the answer is kept

STRING = f'/"{CHARACTER}*"/'


def quoted(inside: str) -> str:
    """Return the terminal of the JSON strings whose insides an expression matches."""
    return f'/"{inside}"/'


def texts(strings: Iterable[str]) -> str:
    """Return the terminal of some strings as JSON spells them."""
    return quoted(f"(?:{'|'.join(literal(one) for one in strings)})")


def both(parts: Iterable[str]) -> str:
    """Return the terminal of the texts that fit all of `parts`."""
    return " & ".join(dict.fromkeys(parts))


def either(parts: Iterable[str]) -> str:
    """Return the terminal of the texts that fit one of `parts`."""
    found = list(dict.fromkeys(parts))
    return found[0] if len(found) == 1 else f"({' | '.join(found)})"


def without(part: str) -> str:
    """Return the terminal of the texts that do not fit `part`; it must be joined with a string's."""
    return f"~({part})"


def fits_something(terminal: str, place: Place) -> bool:
    """Say whether any text fits a terminal of `place`. Raises OptionError if that is too hard to find out."""
    fits = _fits(terminal) if len(terminal) > MAX_KEPT else _kept_fits(terminal)
    if fits is None:
        raise place.fault("has patterns or lengths that are too hard to join", "simplify them")
    return fits


@lru_cache(maxsize=1024)
def _kept_fits(terminal: str) -> bool | None:
    return _fits(terminal)


def _fits(terminal: str) -> bool | None:
    matcher = LLMatcher(byte_tokenizer(), f"start: T\nT: {terminal}", log_level=0, limits=SCHEMA_LIMITS)
    if not matcher.is_error():
        matcher.compute_bitmask()
    if not matcher.is_error():
        return not matcher.is_stopped()
    return False if matcher.get_error().startswith("NoExtension") else None
