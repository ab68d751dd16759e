"""Keywords that other keywords can say: `dependentRequired`, `dependentSchemas`, `not`, and values with parts."""

from collections.abc import Iterator

from .document import ANNOTATING, Place
from .keywords import KINDS, kinds, named, names, refusal, wrong
from .values import Value


def exactly(value: Value) -> Value:
    """Return the schema of one array or object."""
    if isinstance(value, list):
        n: Value = len(value)
        return {"type": "array", "prefixItems": [{"const": v} for v in value], "minItems": n, "maxItems": n}
    assert isinstance(value, dict)
    properties: Value = {key: {"const": v} for key, v in value.items()}
    return {"type": "object", "properties": properties, "required": list(value), "additionalProperties": False}


def dependents(place: Place, key: str) -> Iterator[tuple[Place, list[Place]]]:
    """Yield, for each name in a keyword, the schema of its absence and those that hold where it is there."""
    for name, need in named(place, key).items():
        absent = place.made(f"{key} without {name}", {"properties": {name: False}})
        required: list[Value] = [name]
        if key == "dependentSchemas":
            yield absent, [place.made(f"{key} with {name}", {"required": required}), need]
        elif isinstance(need.value, list) and all(isinstance(other, str) for other in need.value):
            yield absent, [place.made(f"{key} with {name}", {"required": [*required, *need.value]})]
        else:
            raise wrong(place, key, "lists of names")


def negations(place: Place) -> list[Place]:
    """Return the schemas of which one holds where `not` does. Raises OptionError unless `not` is a simple one."""
    negated = place.child("not")
    value = negated.value
    if isinstance(value, bool):
        return [] if value else [place.made("not", True)]
    constraining = set(value) - ANNOTATING if isinstance(value, dict) else {"?"}
    if not constraining:
        return []
    if constraining == {"type"}:
        excluded = kinds(negated)
        if "integer" not in excluded or "number" in excluded:
            left: list[Value] = [kind for kind in KINDS if kind not in excluded]
            return [place.made("not", {"type": left})]
    if constraining == {"required"} and names(negated, "required"):
        absent: list[Value] = [{"type": "object", "properties": {name: False}} for name in names(negated, "required")]
        return [place.made(f"not {i}", one) for i, one in enumerate(absent)]
    raise refusal(place, "not")
