"""Parses untrusted JSON: bounded in size, depth and digits, and with one meaning only."""

import json
import math
import re
from collections.abc import Callable, Iterable
from itertools import chain

from mistral_mlx.errors import ConfigError, MistralMLXError, shown

MAX_JSON_BYTES = 32 * 1024 * 1024  # Mistral's largest tokenizer.json has 17 MB
MAX_JSON_ITEMS = 1 << 21  # commas and opening brackets: that file has a million; a parsed item can take 150 bytes
MAX_JSON_DEPTH = 64  # of lists in lists; real files have 6
MAX_DIGITS = 100  # of a whole number; transformers writes 31 for "no limit"

_HOLDERS = frozenset((dict, list))
_SURROGATE = re.compile(r"\\ud[89a-f]", re.IGNORECASE)


def parse_json(
    text: str,
    *,
    name: str,
    error: type[MistralMLXError] = ConfigError,
    max_items: int = MAX_JSON_ITEMS,
    any_text: bool = False,
) -> dict[str, object]:
    """Return the JSON object in `text`; `name` is the file the error is about.

    Raises `error` for broken JSON, NaN or infinity, a repeated key, a top level that is not an object, more than
    `max_items` items, deep nesting, and half a character (a lone surrogate) in a text unless `any_text` allows it.
    """
    try:
        if (items := sum(map(text.count, ",[{"))) > max_items:
            raise ValueError(f"it has {items:,} items; the limit is {max_items:,}")
        value = json.loads(
            text,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_whole,
            object_pairs_hook=_unique_keys,
        )
        _check_depth(value)
        if not any_text and _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as problem:
        raise error(f"{shown(name)} is not valid JSON: {shown(str(problem), limit=120)}") from problem
    if not isinstance(value, dict):
        raise error(f"{shown(name)} must hold a JSON object, not {type(value).__name__}")
    return value


def _refuse_constant(word: str) -> Callable[[], None]:
    raise ValueError(f"{word} is not a number JSON allows")


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError(f"{shown(digits)} is too large for a number")
    return value


def _whole(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"a number has {len(digits)} digits")
    return int(digits)


def _check_depth(value: object) -> None:
    """Raise ValueError for values nested so deeply that Python could not show or write them."""
    level = _nesting([value])
    for _ in range(MAX_JSON_DEPTH):
        level = _nesting(chain.from_iterable([v.values() if isinstance(v, dict) else v for v in level]))
        if not level:
            return
    raise ValueError(f"it is nested more than {MAX_JSON_DEPTH} deep")


def _nesting(values: Iterable[object]) -> list[dict[str, object] | list[object]]:
    """Return those of the parser's values that hold others; a vocabulary has a hundred thousand that do not."""
    return [value for value in values if type(value) in _HOLDERS]  # type: ignore[misc]  # isinstance takes twice as long


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        repeated = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {shown(repeated)} occurs twice")
    return found
