"""Reads the keys of an untrusted mapping. Every refusal names the key, the value seen, and what is expected."""

import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from mistral_mlx.errors import MistralMLXError, shown

MAX_WHOLE = (1 << 31) - 1  # what an int of the kernels holds


@dataclass(frozen=True)
class Keys:
    """The keys of a `mapping`, in which null counts as absent.

    Every method raises `error` for a value that is not as it must be; the message begins with `where` and the key.
    """

    mapping: Mapping[str, object]
    where: str  # "params.json: " or "llama.": what a message writes before the name of a key
    error: type[MistralMLXError]

    def whole(self, key: str, *, low: int = 1, high: int = MAX_WHOLE, default: int | None = None) -> int:
        """Return a whole number from `low` to `high`. The default may be any number."""
        value = self.mapping.get(key)
        if value is None and default is not None:
            return default
        return self.checked_whole(key, value, low=low, high=high)

    def checked_whole(self, key: str, value: object, *, low: int = 1, high: int = MAX_WHOLE) -> int:
        """Return `value`, found under `key`, if it is a whole number from `low` to `high`."""
        if type(value) is not int or not low <= value <= high:
            raise self.bad(key, value, f"a whole number from {low} to {high}")
        return value

    def positive(self, key: str, *, default: float | None = None) -> float:
        """Return a number above 0 that is not infinite."""
        value = self.mapping.get(key)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= sys.float_info.max:
            raise self.bad(key, value, "a positive number")
        return float(value)

    def flag(self, key: str) -> bool | None:
        """Return true, false, or None if the key is absent."""
        value = self.mapping.get(key)
        if value is not None and not isinstance(value, bool):
            raise self.bad(key, value, "true or false")
        return value

    def one_of(self, key: str, allowed: Collection[str], *, default: str | None = None) -> str:
        """Return one of the texts `allowed`; null is none of them."""
        value = self.mapping.get(key, default)
        if not isinstance(value, str) or value not in allowed:
            raise self.bad(key, value, " or ".join(map(repr, allowed)))
        return value

    def names(self, key: str) -> list[str] | None:
        """Return a list of texts; None if the key is absent."""
        value = self.mapping.get(key)
        if value is not None and not (isinstance(value, list) and all(isinstance(name, str) for name in value)):
            raise self.bad(key, value, "a list of names")
        return value

    def entries(self, key: str) -> Mapping[str, object] | None:
        """Return an object; None if the key is absent."""
        value = self.mapping.get(key)
        if value is not None and not isinstance(value, Mapping):
            raise self.bad(key, value, "an object")
        return value

    def refuse_unknown(self, known: Collection[str]) -> None:
        """Raise `error` for the first key that is not `known`, unless it is off: false, null, 0, or empty."""
        for key, value in self.mapping.items():
            if key not in known and value:
                raise self.refused(key, value)

    def refused(self, key: str, value: object) -> MistralMLXError:
        """Return the error for a key whose value this program does not implement."""
        return self.error(f"{self.where}{shown(key)} is {shown(repr(value))}, which this program does not implement")

    def bad(self, key: str, value: object, expected: str) -> MistralMLXError:
        """Return the error for a `value`, found under `key`, that is not as `expected`."""
        what = "is missing" if value is None else f"is {shown(repr(value))}"
        return self.error(f"{self.where}{shown(key)} {what}; {expected} is expected")
