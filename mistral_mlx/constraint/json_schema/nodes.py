"""What a conjunction of subschemas means: for each kind of value, the rules that hold together."""

from dataclasses import dataclass

from .document import Place

Goal = tuple[Place, ...]  # subschemas that hold together; none: any value
Flats = tuple[Place, ...]  # subschemas that hold together, read without their combining keywords
NEVER = Place(("false",), False)


@dataclass(frozen=True)
class Text:
    """A value that one terminal spells: null, a boolean, a number or a string."""

    terminal: str
    listed: tuple[str, ...] | None = None  # a terminal for each value, where the schema lists them


@dataclass(frozen=True)
class Property:
    """A property that the schema names."""

    name: str
    goal: Goal
    required: bool


@dataclass(frozen=True)
class Object:
    """An object: named properties in order, then others by the terminals of their names."""

    named: tuple[Property, ...]
    others: tuple[tuple[str, Goal], ...]
    least: int
    most: int | None
    place: Place


@dataclass(frozen=True)
class Array:
    """An array: single items in order, then any number like `rest`."""

    single: tuple[Goal, ...]
    rest: Goal
    least: int
    most: int | None
    once: tuple[str, ...] = ()  # the terminals of which each may stand there once, in this order, instead of the items


Node = Text | Object | Array
