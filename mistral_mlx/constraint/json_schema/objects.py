"""Objects and arrays: the nodes of what several subschemas allow together."""

from collections.abc import Iterable
from itertools import product
from typing import Protocol

from mistral_mlx.errors import shown

from .document import Document, Place
from .keywords import count, inside, kinds, listed, named, names, refusal, values
from .nodes import NEVER, Array, Flats, Goal, Node, Object, Property, Text
from .scalars import check_joined, is_match, pattern_terminal
from .terminals import STRING, both, either, fits_something, texts, without

MAX_ONCE = 64  # values of which each may stand in an array once
MAX_PATTERNS = 4  # of the names of one object: each may match or not


class Reader(Protocol):
    """Takes goals apart."""

    wide: bool
    document: Document

    def nodes(self, goal: Goal) -> tuple[Node, ...] | None:
        """Return the nodes that `goal` may be; None if any value."""
        ...


def array_node(flats: Flats, reader: Reader) -> Array | None:
    """Return the arrays that fit `flats`, or None if there are none. Raises OptionError."""
    if not _allowed(flats, "array"):
        return None
    lists = [_items(flat) for flat in flats]
    n_single = max(len(single) for single, _ in lists)
    singles = tuple(tuple(_item(single, rest, i) for single, rest in lists) for i in range(n_single))
    rest = tuple(rest for _, rest in lists if rest is not None)
    least = max(count(flat, "minItems") or 0 for flat in flats)
    most = _least(count(flat, "maxItems") for flat in flats)
    if most is not None and least > most:
        return None
    items = _goal(rest, reader)
    once: tuple[str, ...] = ()
    for flat in flats:
        if _is_unique(flat) and (most is None or most > 1) and not reader.wide:
            once = _listed(flat, () if singles else items, reader)
            if len(once) > MAX_ONCE:
                raise flat.fault(f"has 'uniqueItems' for {len(once)} different values", f"give {MAX_ONCE} at most")
    return Array(tuple(_goal(single, reader) for single in singles), items, least, most, once)


def object_node(flats: Flats, reader: Reader) -> Object | None:
    """Return the objects that fit `flats`, or None if there are none. Raises OptionError."""
    if not _allowed(flats, "object"):
        return None
    least = max(count(flat, "minProperties") or 0 for flat in flats)
    most = _least(count(flat, "maxProperties") for flat in flats)
    if most is not None and least > most:
        return None
    members = [_Members(flat, reader.wide) for flat in flats]
    patterns = {p: one.flat for one in members for p in one.patterns}
    if len(patterns) > MAX_PATTERNS:
        place = next(iter(patterns.values()))
        raise place.fault(f"has {len(patterns)} different patternProperties", f"give {MAX_PATTERNS} at most")
    keys = dict.fromkeys(key for one in members for key in one.properties)
    required = dict.fromkeys(key for flat in flats for key in names(flat, "required"))
    name_goal = _goal((one.names for one in members if one.names is not None), reader)
    name_terminal = _name_terminal(name_goal, reader) if name_goal else STRING
    found = []
    for key in keys | required:
        goal = _goal((place for one in members for place in one.of(key)), reader)
        if name_goal and (name_terminal is None or not fits_something(both([texts([key]), name_terminal]), flats[0])):
            goal = (NEVER,)
        found.append(Property(key, goal, key in required))
    others = (
        ()
        if reader.wide or name_terminal is None
        else tuple(_others(members, list(keys | required), name_terminal, reader))
    )
    return Object(tuple(found), others, least, most, flats[0])


class _Members:
    """The keywords of one subschema that give schemas to the members of an object."""

    def __init__(self, flat: Place, wide: bool) -> None:
        self.flat = flat
        self.wide = wide
        self.properties = named(flat, "properties")
        self.patterns = named(flat, "patternProperties")
        self.additional = inside(flat, "additionalProperties")
        self.names = inside(flat, "propertyNames")

    def of(self, key: str) -> list[Place]:
        """Return the schemas of a property; where it is not sure which, all for an answer, none in a wide reader."""
        found = [self.properties[key]] if key in self.properties else []
        maybe = [p for p in self.patterns if self.matches(p, key, wide=True)]
        sure = [p for p in maybe if self.matches(p, key, wide=False)]
        found += [self.patterns[p] for p in (sure if self.wide else maybe)]
        is_additional = key not in self.properties and not (maybe if self.wide else sure)
        return [*found, self.additional] if is_additional and self.additional else found

    def of_matching(self, patterns: Iterable[str]) -> list[Place]:
        """Return the schemas of a property without a name of its own that matches these patterns only."""
        found = [self.patterns[p] for p in patterns if p in self.patterns]
        return [self.additional] if not found and self.additional else found

    def matches(self, pattern: str, key: str, *, wide: bool) -> bool:
        """Say whether a pattern surely finds a match in a key, or in its wide form whether it might."""
        return is_match(self.flat, pattern, key, wide=wide)


def _others(
    members: list[_Members], taken: list[str], name_terminal: str, reader: Reader
) -> Iterable[tuple[str, Goal]]:
    """Yield the terminal and the goal of the members that have no name of their own, by the patterns they match."""
    patterns = {p: one.flat for one in members for p in one.patterns}
    check_joined((place, pattern) for pattern, place in patterns.items())
    free = [without(texts(taken))] if taken else []
    for chosen in product((False, True), repeat=len(patterns)):
        matching = [p for p, is_matching in zip(patterns, chosen, strict=True) if is_matching]
        goal = _goal((place for one in members for place in one.of_matching(matching)), reader)
        if any(place.value is False for place in goal):
            continue
        parts = [STRING, name_terminal, *free]
        for pattern, place in patterns.items():
            terminal = pattern_terminal(place, pattern, wide=pattern not in matching)
            parts.append(terminal if pattern in matching else without(terminal))
        terminal = both(parts)
        if (len(parts) - len(free) == 2 and name_terminal == STRING) or fits_something(terminal, members[0].flat):
            yield terminal, goal


def _name_terminal(goal: Goal, reader: Reader) -> str | None:
    """Return the terminal of the names that fit `goal`, or None if there is none."""
    nodes = reader.nodes(goal)
    if nodes is None:
        return STRING
    found = [node.terminal for node in nodes if isinstance(node, Text) and '"' in node.terminal]
    return either(f"({terminal})" for terminal in found) if found else None


def _allowed(flats: Flats, kind: str) -> bool:
    """Say whether `flats` allow a kind of value with parts; those that are listed were made into subschemas before."""
    return all(kind in kinds(flat) and values(flat) is None for flat in flats)


def _items(flat: Place) -> tuple[list[Place], Place | None]:
    """Return the schemas of the single items of an array and of the rest."""
    value = flat.value
    if isinstance(value, dict) and isinstance(value.get("items"), list):
        return listed(flat, "items"), inside(flat, "additionalItems")
    return listed(flat, "prefixItems"), inside(flat, "items")


def _item(single: list[Place], rest: Place | None, i: int) -> Place:
    return single[i] if i < len(single) else rest or Place(("true",), True)


def _is_unique(flat: Place) -> bool:
    """Return `uniqueItems`."""
    value = flat.value
    assert isinstance(value, dict)
    if "contains" in value:
        raise refusal(flat, "contains")
    unique = value.get("uniqueItems", False)
    if not isinstance(unique, bool):
        raise flat.fault(f"has 'uniqueItems' with {shown(unique, limit=40)}", "give true or false")
    return unique


def _listed(flat: Place, items: Goal, reader: Reader) -> tuple[str, ...]:
    """Return the terminal of each value that the items of an array can have. Raises OptionError if they are free."""
    nodes = reader.nodes(items)
    each = [one for node in nodes or () if isinstance(node, Text) for one in node.listed or ()]
    if nodes is None or not all(isinstance(node, Text) and node.listed is not None for node in nodes):
        raise refusal(flat, "uniqueItems")
    return tuple(dict.fromkeys(each))


def _goal(places: Iterable[Place], reader: Reader) -> Goal:
    """Return a goal without repetitions and without schemas that allow everything."""
    followed = dict.fromkeys(reader.document.followed(place) for place in places)
    return tuple(place for place in followed if place.value is not True and place.value != {})


def _least(numbers: Iterable[int | None]) -> int | None:
    found = [n for n in numbers if n is not None]
    return min(found) if found else None
