"""The meaning of subschemas: conjunctions taken apart into alternatives, and each into nodes.

A reader in its wide form answers what *might* hold instead of what surely does; by it two branches of a `oneOf`
are shown to exclude each other.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from .document import Document, Place
from .keywords import CONSTRAINING, check_keywords, listed, values, wrong
from .nodes import Flats, Goal, Node, Object
from .objects import array_node, object_node
from .rewriting import dependents, exactly, negations
from .scalars import scalar_nodes

MAX_WORK = 300_000  # steps for one schema
MAX_SECONDS = 1.0  # of one processor; patterns that are hard to join take it
MAX_ALTERNATIVES = 2000  # of one place
MAX_ABOVE = 100  # subschemas inside each other that an answer passes in one step
MAX_INSIDE = 20  # goals taken apart while another is
MAX_EXCLUSION = 3  # how deep two branches of a oneOf are compared


@dataclass
class Work:
    """How much has been done for a schema; shared by both readers."""

    done: int = 0
    started: float = field(default_factory=time.thread_time)

    def add(self, n: int, place: Place) -> None:
        """Count `n` steps. Raises OptionError for a schema that combines too much."""
        self.done += n
        if self.done > MAX_WORK or time.thread_time() - self.started > MAX_SECONDS:
            raise place.fault("combines too many subschemas", "simplify its allOf, anyOf and oneOf")


@dataclass(frozen=True)
class _Part:
    """A subschema to be taken apart, with the places that led to it, or one that is done with (`flat`)."""

    place: Place
    above: tuple[Place, ...] = ()
    flat: bool = False

    def below(self, *places: Place) -> "tuple[_Part, ...]":
        return tuple(_Part(place, (*self.above, self.place)) for place in places)


Ways = list[tuple[_Part, ...]]  # each of them a conjunction


class Reader:
    """Takes goals apart; raises OptionError for what cannot be guaranteed."""

    def __init__(self, document: Document, *, wide: bool = False, work: Work | None = None) -> None:
        self.document = document
        self.wide = wide
        self.work = work or Work()
        self.found: dict[Goal, tuple[Node, ...] | None] = {}
        self.doing: set[Goal] = set()
        self.judge = self if wide else Reader(document, wide=True, work=self.work)

    def nodes(self, goal: Goal) -> tuple[Node, ...] | None:
        """Return the nodes that `goal` may be: none if nothing fits, None if any value does."""
        if goal not in self.found:
            if goal in self.doing or len(self.doing) > MAX_INSIDE:
                raise goal[0].fault("refers to itself", "names of properties and unique items must be simple")
            self.doing.add(goal)
            alternatives = self._alternatives(goal)
            if any(not flats for flats in alternatives):
                self.found[goal] = None
            else:
                self.found[goal] = tuple(dict.fromkeys(n for flats in alternatives for n in self._nodes(flats)))
            self.doing.remove(goal)
        return self.found[goal]

    def may_hold(self, goal: Goal, depth: int = MAX_EXCLUSION) -> bool:
        """Say whether any value might fit `goal`; for a wide reader."""
        nodes = self.nodes(goal)
        if nodes is None or depth == 0:
            return True
        return any(
            not isinstance(node, Object)
            or all(self.may_hold(one.goal, depth - 1) for one in node.named if one.required)
            for node in nodes
        )

    def _nodes(self, flats: Flats) -> list[Node]:
        found: list[Node] = list(scalar_nodes(flats, self.document, wide=self.wide))
        return found + [node for node in (array_node(flats, self), object_node(flats, self)) if node]

    def _alternatives(self, goal: Goal) -> list[Flats]:
        """Return the ways in which `goal` can hold, each as subschemas to read without their combining keywords."""
        done: dict[Flats, None] = {}
        waiting: list[tuple[tuple[_Part, ...], Flats]] = [(tuple(_Part(place) for place in goal), ())]
        while waiting:
            parts, flats = waiting.pop()
            self.work.add(1 + len(parts), goal[0] if goal else self.document.root)
            if len(done) + len(waiting) > MAX_ALTERNATIVES:
                raise goal[0].fault("has too many combinations", "simplify its allOf, anyOf and oneOf")
            if not parts:
                done[flats] = None
            elif parts[0].flat:
                waiting.append((parts[1:], flats if parts[0].place in flats else (*flats, parts[0].place)))
            else:
                waiting += [((*way, *parts[1:]), flats) for way in reversed(self._ways(parts[0]))]
        return list(done)

    def _ways(self, part: _Part) -> Ways:
        """Return the ways in which one subschema can hold."""
        place = part.place
        if isinstance(place.value, bool):
            return [()] if place.value else []
        check_keywords(place, self.document)
        if self.wide:
            place = self.document.as_judged(place)
        if place in part.above:
            raise place.fault("refers to itself", "let its $ref lead to something else")
        if len(part.above) > MAX_ABOVE:
            raise place.fault(f"refers on through more than {MAX_ABOVE} places", "make its references shorter")
        assert isinstance(place.value, dict)
        ways: Ways = [()]
        own = False
        for key in place.value:
            if key in ("properties", "required") and not own:
                own, choices = True, _own_ways(place)
                ways = self._each(ways, choices, place)
            for choices in self._choices(part, key):
                ways = self._each(ways, choices, place)
        return ways if own else self._each(_own_ways(place), ways, place)

    def _each(self, ways: Ways, choices: Ways, place: Place) -> Ways:
        self.work.add(len(ways) * len(choices), place)
        return [(*way, *choice) for way in ways for choice in choices]

    def _choices(self, part: _Part, key: str) -> Iterator[Ways]:
        """Yield the choices that a combining keyword gives; each is to be made."""
        place = part.place
        assert isinstance(place.value, dict)
        if key == "$ref":
            yield [part.below(self.document.target(place, place.value[key]))]
        elif key in ("allOf", "anyOf", "oneOf"):
            branches = listed(place, key)
            if not branches:
                raise wrong(place, key, "a list with a schema in it")
            if key == "oneOf" and not self.wide:
                self._check_exclusive(place, branches)
            yield [part.below(*branches)] if key == "allOf" else [part.below(branch) for branch in branches]
        elif key in ("dependentRequired", "dependentSchemas"):
            for absent, present in dependents(place, key):
                yield [part.below(absent), part.below(*present)]
        elif key == "not":
            yield [part.below(one) for one in negations(place)]

    def _check_exclusive(self, place: Place, branches: list[Place]) -> None:
        """Refuse a oneOf of which two branches might hold at once."""
        assert isinstance(place.value, dict)
        own = place.made("without oneOf", {key: v for key, v in place.value.items() if key != "oneOf"})
        for i, one in enumerate(branches):
            for j, other in enumerate(branches[:i]):
                if self.judge.may_hold((other, one)) and self.judge.may_hold((own, other, one)):
                    words = f"has a oneOf whose branches {j} and {i} may both hold"
                    raise place.fault(words, "write anyOf, or give them different values of a required property")


def _own_ways(place: Place) -> Ways:
    """Return the ways in which the keywords of a place hold that combine nothing."""
    value = place.value
    assert isinstance(value, dict)
    if not CONSTRAINING & value.keys():
        return [()]
    allowed = values(place)
    if allowed is None:
        return [(_Part(place, flat=True),)]
    rest = place.made("without enum", {key: v for key, v in value.items() if key not in ("enum", "const")})
    ways: Ways = [(_Part(place, flat=True),)]
    for i, one in enumerate(allowed):
        if isinstance(one, list | dict):
            ways.append((_Part(rest, flat=True), _Part(place.made(f"enum {i}", exactly(one)), flat=True)))
    return ways
