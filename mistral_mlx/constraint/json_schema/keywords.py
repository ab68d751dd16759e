"""The keywords of a subschema: read with their types checked, and refused by name where nothing can keep them."""

from collections.abc import Iterator
from fractions import Fraction

from mistral_mlx.errors import OptionError, shown

from .document import Document, Place
from .numbers import Bounds
from .values import Value, place_name

KINDS = ("null", "boolean", "number", "string", "array", "object")
MAX_COUNT = 65_535  # each character of a bounded string is a state of the lexer
CONSTRAINING = frozenset(
    "type const enum minimum maximum exclusiveMinimum exclusiveMaximum multipleOf minLength maxLength pattern format "
    "items prefixItems additionalItems minItems maxItems uniqueItems contains properties patternProperties "
    "additionalProperties required minProperties maxProperties propertyNames".split()
)
ADVICE = {
    "not": "say what an answer may be instead, or negate a type or required only",
    "if": "write the cases as anyOf",
    "dependencies": "write dependentRequired or dependentSchemas",
    "unevaluatedProperties": "write additionalProperties with all properties beside it",
    "unevaluatedItems": "write prefixItems and items",
    "$dynamicRef": "write $ref",
    "$recursiveRef": "write $ref",
    "contains": "leave it out",
    "uniqueItems": "leave it out, or list the values of the items in an enum",
}


def check_keywords(place: Place, document: Document) -> None:
    """Raise OptionError for a keyword that cannot be kept, whatever the answer is."""
    value = place.value
    if not isinstance(value, dict):
        raise place.fault(f"has {shown(value, limit=40)}", "give a schema there: an object, true or false")
    for name in ("dependencies", "unevaluatedProperties", "unevaluatedItems", "$dynamicRef", "$recursiveRef"):
        if name in value:
            raise refusal(place, name)
    if "if" in value and ("then" in value or "else" in value):
        raise refusal(place, "if")
    if document.draft >= 2020:
        if isinstance(value.get("items"), list):
            raise place.fault("has 'items' with a list", "write prefixItems for single items")
        if "additionalItems" in value:
            raise place.fault("has 'additionalItems'", "write prefixItems for single items and items for the rest")
    elif "prefixItems" in value:
        raise place.fault("has 'prefixItems' and an older $schema", "leave $schema out")


def refusal(place: Place, name: str) -> OptionError:
    """Return the error for a keyword that cannot be kept."""
    words = f"the schema has '{name}' {place_name(place.keys)}, which cannot be guaranteed"
    return OptionError(f"{words}; {ADVICE[name]}")


def kinds(place: Place) -> frozenset[str]:
    """Return the kinds of values that `type` allows; "integer" stands for numbers without a fraction."""
    value = _members(place).get("type")
    if value is None:
        return frozenset(KINDS)
    names = value if isinstance(value, list) else [value]
    for name in names:
        if not isinstance(name, str) or name not in (*KINDS, "integer"):
            raise wrong(place, "type", f"one of {', '.join(KINDS)} or integer")
    return frozenset(name for name in names if isinstance(name, str))


def values(place: Place) -> list[Value] | None:
    """Return the values that `const` and `enum` allow, or None if there is neither."""
    members = _members(place)
    if "enum" in members:
        listed = members["enum"]
        if not isinstance(listed, list):
            raise wrong(place, "enum", "a list")
        if "const" in members:
            raise place.fault("has both 'const' and 'enum'", "give one of them")
        return listed
    return [members["const"]] if "const" in members else None


def bounds(place: Place, document: Document) -> Iterator[Bounds]:
    """Yield the bounds of a number, one by one."""
    members = _members(place)
    for name, without in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        low = name == "minimum"
        flag = members.get(without)
        if isinstance(flag, bool) and document.draft == 4:
            end = _number(place, name) if name in members else None
            yield Bounds(end, None, flag) if low else Bounds(None, end, False, flag)
            continue
        for key in (name, without):
            if key in members:
                end = _number(place, key)
                yield Bounds(end, None, key == without) if low else Bounds(None, end, False, key == without)


def step(place: Place) -> int | float | None:
    """Return `multipleOf`."""
    value = _members(place).get("multipleOf")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        raise wrong(place, "multipleOf", "a number above 0")
    return value


def count(place: Place, name: str) -> int | None:
    """Return a keyword that counts something."""
    value = _members(place).get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0 or value != int(value):
        raise wrong(place, name, "a whole number, 0 or above")
    if name.startswith("min") and value > MAX_COUNT:
        raise place.fault(
            f"has '{name}' of {shown(value, limit=20)}", f"no answer is so long; give {MAX_COUNT:,} at most"
        )
    return min(int(value), MAX_COUNT)


def text(place: Place, name: str) -> str | None:
    """Return a keyword that is a text."""
    value = _members(place).get(name)
    if value is not None and not isinstance(value, str):
        raise wrong(place, name, "a string")
    return value


def names(place: Place, name: str) -> list[str]:
    """Return a keyword that lists names of properties."""
    value = _members(place).get(name, [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise wrong(place, name, "a list of strings")
    return [item for item in value if isinstance(item, str)]


def inside(place: Place, name: str) -> Place | None:
    """Return the subschema of a keyword that has one."""
    return place.child(name) if name in _members(place) else None


def listed(place: Place, name: str) -> list[Place]:
    """Return the subschemas of a keyword that has a list of them."""
    value = _members(place).get(name, [])
    if not isinstance(value, list):
        raise wrong(place, name, "a list of schemas")
    return [place.child(name, i) for i in range(len(value))]


def named(place: Place, name: str) -> dict[str, Place]:
    """Return the subschemas of a keyword that has one for each of several names."""
    value = _members(place).get(name, {})
    if not isinstance(value, dict):
        raise wrong(place, name, "an object with schemas")
    return {key: place.child(name, key) for key in value}


def wrong(place: Place, name: str, expected: str) -> OptionError:
    """Return the error for a keyword whose value has the wrong type."""
    return place.fault(f"has '{name}' with {shown(_members(place).get(name), limit=40)}", f"give {expected}")


def _members(place: Place) -> dict[str, Value]:
    assert isinstance(place.value, dict), place.keys
    return place.value


def _number(place: Place, name: str) -> Fraction:
    value = _members(place)[name]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong(place, name, "a number")
    return Fraction(value)
