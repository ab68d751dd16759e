"""Hostile values as plain ones: a bounded copy of a schema, made before anything else looks at it."""

import math
from collections.abc import Mapping

from mistral_mlx.constraint.limits import MAX_CHARACTERS
from mistral_mlx.errors import OptionError, shown

Value = None | bool | int | float | str | list["Value"] | dict[str, "Value"]
Keys = tuple[str | int, ...]  # the way from the root of a schema to a place in it

MAX_DEPTH = 64
MAX_VALUES = 50_000
MAX_BITS = 1000  # of a number: about 300 digits


def plain(value: object) -> Value:
    """Return a copy of `value` that holds plain JSON values only. Raises OptionError for anything else."""
    return _Copy().of(value, ())


def place_name(keys: Keys) -> str:
    """Return the words for a place of a schema: "at its top" or "at properties.tags.items"."""
    path = ".".join(str(key) for key in keys)
    return f"at {shown(path, limit=120)}" if keys else "at its top"


def interned(value: Value, known: dict[object, Value]) -> Value:
    """Return `value` with equal parts as one and the same object; `known` keeps them."""
    if isinstance(value, dict):
        value = {key: interned(item, known) for key, item in value.items()}
        mark: object = ("object", *((key, _mark(item)) for key, item in value.items()))
    elif isinstance(value, list):
        value = [interned(item, known) for item in value]
        mark = ("array", *(_mark(item) for item in value))
    else:
        return value
    return known.setdefault(mark, value)


def _mark(value: Value) -> object:
    return id(value) if isinstance(value, dict | list) else (type(value), value)


class _Copy:
    def __init__(self) -> None:
        self.n_values = 0
        self.n_characters = 0

    def of(self, value: object, keys: Keys) -> Value:
        self.n_values += 1
        if self.n_values > MAX_VALUES:
            raise OptionError(f"the schema holds more than {MAX_VALUES:,} values; give a smaller one")
        if len(keys) > MAX_DEPTH:
            raise OptionError(f"the schema is nested deeper than {MAX_DEPTH} levels; move parts of it into $defs")
        if isinstance(value, Mapping):
            return {self._text(key, keys): self.of(item, (*keys, key)) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.of(item, (*keys, i)) for i, item in enumerate(value)]
        if isinstance(value, str):
            return self._text(value, keys)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int) and value.bit_length() <= MAX_BITS:
            return int(value)
        if isinstance(value, float) and math.isfinite(value):
            return float(value)
        kind = "a number out of range" if isinstance(value, int | float) else f"a value of type {type(value).__name__}"
        raise OptionError(f"the schema has {kind} {place_name(keys)}; give plain JSON values")

    def _text(self, value: object, keys: Keys) -> str:
        if not isinstance(value, str):
            raise OptionError(f"the schema has the key {shown(value)} {place_name(keys)}; keys must be strings")
        self.n_characters += len(value)
        if self.n_characters > MAX_CHARACTERS:
            raise OptionError(f"the schema has more than {MAX_CHARACTERS:,} characters; give a smaller one")
        if any("\ud800" <= c <= "\udfff" for c in value):
            raise OptionError(f"the schema has half a surrogate pair {place_name(keys)}; give whole characters")
        return str(value)
