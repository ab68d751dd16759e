"""Options as fields of a dataclass: type, range, default and help of each are written once, in its field.

Imports neither MLX nor NumPy, which ``--help`` does not need.
"""

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from numbers import Integral, Real
from typing import TypeVar

from mistral_mlx.errors import OptionError, shown

T = TypeVar("T")
WANTED = {float: "a number", int: "a whole number", bool: "true or false", str: "a text", list: "a list of texts"}


@dataclass(frozen=True)
class Texts:
    """How users write a value as a list of texts."""

    read: Callable[[list[str]], object] = tuple  # the value of these texts
    spell: Callable[[object], list[str] | None] | None = None  # the texts of a value; None for the default


@dataclass(frozen=True)
class Knob:
    """One option: what it means, and which values it takes.

    A value that is not a number, a flag or a text, such as the bias of each token, is a list of texts wherever a user
    writes it; `texts` converts the two.
    """

    about: str = ""
    metavar: str = ""
    off: float | None = None  # the value that changes nothing
    least: float | None = None
    above: float | None = None
    at_most: float | None = None
    choices: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()  # on the command line, where they are not just the name
    key: str = ""  # the name for users, where it is not that of the field
    texts: Texts = Texts()
    name: str = ""  # this and the rest are the field's
    kind: type = float  # `list` if users write texts
    optional: bool = False  # whether None is a value
    default: object = None

    @property
    def help(self) -> str:
        """The line of ``--help``."""
        return self.about + (f"; {self.off:g} is off." if self.off is not None else ".")

    @property
    def expected(self) -> str:
        """The values it takes, in words."""
        if self.choices:
            return " or ".join(self.choices)
        wanted = WANTED[self.kind]
        if self.above is not None:
            return f"{wanted} above {self.above:g}" + ("" if self.at_most is None else f" and at most {self.at_most:g}")
        if self.least is not None:
            to = "" if self.at_most is None else f" to {self.at_most if self.kind is int else f'{self.at_most:g}'}"
            return f"{wanted} from {self.least:g}{to}" if to else f"{wanted} of at least {self.least:g}"
        return "a finite number" if self.kind is float else wanted

    def check(self, value: object) -> None:
        """Raise OptionError if `value` has the wrong type or is out of range."""
        if not (self.kind is list or (self.optional and value is None) or self._fits(value)):
            raise OptionError(f"{self.key} is {shown(value)}; it must be {self.expected}")

    def from_plain(self, value: object) -> object:
        """Return the value that is written as `value` in a file or on the command line. Raises OptionError."""
        if self.kind is not list:
            self.check(value)
            return float(value) if self.kind is float and isinstance(value, Real) else value
        if value is None:
            return self.default
        if not isinstance(value, list | tuple) or not all(isinstance(text, str) for text in value):
            raise OptionError(f"{self.key} is {shown(value)}; it must be {self.expected}")
        return self.texts.read(list(value))

    def to_plain(self, value: object) -> object:
        """Return what a user or a file writes for `value`; the opposite of `from_plain`."""
        if self.texts.spell:
            return self.texts.spell(value)
        return list(value) if isinstance(value, tuple | list) else value

    def _fits(self, value: object) -> bool:
        if self.kind in (bool, str):
            return isinstance(value, self.kind) and (not self.choices or value in self.choices)
        if isinstance(value, bool) or not isinstance(value, Integral if self.kind is int else Real):
            return False
        number: float = int(value) if isinstance(value, Integral) else float(value)  # an int is compared exactly
        return (
            (isinstance(number, int) or math.isfinite(number))
            and (self.least is None or number >= self.least)
            and (self.above is None or number > self.above)
            and (self.at_most is None or number <= self.at_most)
        )


def knob(
    default: T,
    metavar: str = "",
    about: str = "",
    *,
    off: float | None = None,
    least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    choices: tuple[str, ...] = (),
    flags: tuple[str, ...] = (),
    texts: Texts = Texts(),
) -> T:
    """Return a field of a dataclass that is an option; see Knob."""
    key = flags[0].removeprefix("--").replace("-", "_") if flags else ""
    option = Knob(about, metavar, off, least, above, at_most, choices, flags, key, texts)
    return field(default=default, metadata={"knob": option})


def knobs(options: type) -> Mapping[str, Knob]:
    """Return the options that are fields of a dataclass, by their names for users."""
    return _knobs(options)


@functools.cache
def _knobs(options: type) -> Mapping[str, Knob]:
    bound = [_bound(f.metadata["knob"], f.name, f.type, f.default) for f in fields(options)]
    return {option.key: option for option in bound}


def _bound(option: Knob, name: str, annotation: object, default: object) -> Knob:
    optional = annotation == int | None
    kind = int if optional else annotation if annotation in (float, int, bool, str) else list
    return replace(option, name=name, key=option.key or name, kind=kind, optional=optional, default=default)
