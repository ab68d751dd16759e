"""Circles of subschemas that say something about one and the same value: a judge would follow them for ever."""

from collections.abc import Iterator

from .document import Document, Place


def check_circles(document: Document) -> None:
    """Raise OptionError for a place that leads to itself, even by a branch that no answer can take."""
    done = set[Place]()
    for start in document.places:
        way = [(start, _same_value(start, document))] if start not in done else []
        on_way = {start}
        while way:
            place, below = way[-1]
            one = next((one for one in below if one not in done), None)
            if one is None:
                way.pop()
                on_way.discard(place)
                done.add(place)
            elif one in on_way:
                raise one.fault("refers to itself", "let its $ref lead to something else")
            else:
                on_way.add(one)
                way.append((one, _same_value(one, document)))


def _same_value(place: Place, document: Document) -> Iterator[Place]:
    """Yield the places that a place applies to the value it is about."""
    value = place.value
    if not isinstance(value, dict):
        return
    if "$ref" in value:
        yield document.target(place, value["$ref"])
    for key in ("allOf", "anyOf", "oneOf"):
        branches = value.get(key)
        yield from (place.child(key, i) for i in range(len(branches) if isinstance(branches, list) else 0))
    dependents = value.get("dependentSchemas")
    yield from (place.child("dependentSchemas", name) for name in (dependents if isinstance(dependents, dict) else ()))
    if "not" in value:
        yield place.child("not")
