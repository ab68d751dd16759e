"""The rules of a grammar: what they are made of, and whether they can be used. It knows no notation.

A rule is a tree of nodes: words, expressions, names of rules, sequences, choices and repetitions.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

MAX_NODES = 20_000
MAX_NESTING = 50  # of groups


class GrammarFault(ValueError):
    """What is wrong with a grammar, and where."""


@dataclass(frozen=True)
class Word:
    """Letters as they stand."""

    text: str
    ignoring_case: bool = False


@dataclass(frozen=True)
class Expression:
    """A regular expression in llguidance's notation, and how many letters it has with all repetitions written out."""

    text: str
    size: int = 1


@dataclass(frozen=True)
class Name:
    """A rule, in a line of the grammar."""

    name: str
    line: int


@dataclass(frozen=True)
class Sequence:
    """All parts, one after another. Without parts it is the empty text."""

    parts: "tuple[Node, ...]"


@dataclass(frozen=True)
class Choice:
    """One of the options."""

    options: "tuple[Node, ...]"


@dataclass(frozen=True)
class Repeat:
    """A part so many times; without `most`, as often as you like."""

    part: "Node"
    least: int
    most: int | None


Node = Word | Expression | Name | Sequence | Choice | Repeat
Rules = Mapping[str, Node]


def children(node: Node) -> tuple[Node, ...]:
    match node:
        case Sequence(parts):
            return parts
        case Choice(options):
            return options
        case Repeat(part):
            return (part,)
        case _:
            return ()


def nodes(node: Node) -> Iterator[Node]:
    """Yield a node and all below it."""
    yield node
    for child in children(node):
        yield from nodes(child)


def names(node: Node) -> Iterator[Name]:
    """Yield the names that a node refers to, in order."""
    return (inner for inner in nodes(node) if isinstance(inner, Name))


def check_names(rules: Rules, start: str) -> None:
    """Raise GrammarFault if a rule is missing."""
    if start not in rules:
        raise GrammarFault(f"has no rule {start}, with which each text begins")
    for rule in rules.values():
        for name in names(rule):
            if name.name not in rules:
                raise GrammarFault(f"has no rule {name.name}, which line {name.line} refers to")


def check_ends(rules: Rules, used: list[str]) -> None:
    """Raise GrammarFault if one of the rules `used` never comes to an end."""
    ending = _settled(rules, every=False)
    if endless := [name for name in used if name not in ending]:
        raise GrammarFault(f"has the rule {endless[-1]}, of which no text ever ends")


def reachable(rules: Rules, start: str) -> list[str]:
    """Return `start` and the rules that it refers to, through others too, in order."""
    found, waiting = dict.fromkeys([start]), [start]
    while waiting:
        for name in names(rules[waiting.pop()]):
            if name.name not in found:
                found[name.name] = None
                waiting.append(name.name)
    return list(found)


def plain(rules: Rules) -> set[str]:
    """Return the rules that do not refer to themselves, nor to one that does."""
    return _settled(rules, every=True)


def sizes(rules: Rules, wanted: set[str], limit: int) -> dict[str, int]:
    """Return how many letters each rule of `wanted` has with all repetitions and all rules written out.

    A number above `limit` only says that there are more. The rules must be plain ones.
    """
    found: dict[str, int] = {}

    def of(node: Node) -> int:
        match node:
            case Word(text):
                size = len(text)
            case Expression(_, size):
                pass
            case Name(name):
                size = found[name]
            case Repeat(part, least, most):
                size = of(part) * max(least, most or 1)
            case _:
                size = sum(map(of, children(node)))
        return min(max(size, 1), limit + 1)

    waiting = list(wanted)
    while waiting:
        missing = [name.name for name in names(rules[waiting[-1]]) if name.name not in found]
        if missing:
            waiting += missing
        else:
            name = waiting.pop()
            found[name] = of(rules[name])
    return found


def _settled(rules: Rules, *, every: bool) -> set[str]:
    """Return the rules that come to an end: one way of theirs or, with `every`, all ways, also those not taken.

    A node waits for the nodes below it and tells the one above it, so that each is visited once.
    """
    needed: list[int] = []
    above: list[int | str] = []
    users: dict[str, list[int]] = {name: [] for name in rules}
    ready: list[int] = []

    def add(node: Node, parent: int | str) -> None:
        index, below = len(needed), children(node)
        match node:
            case Name(name):
                count = 1
                users[name].append(index)
            case Choice():
                count = len(below) if every else 1
            case Repeat(_, least, _):
                count = 1 if every or least else 0
            case _:
                count = len(below)
        needed.append(count)
        above.append(parent)
        if not count:
            ready.append(index)
        for child in below:
            add(child, index)

    for name, rule in rules.items():
        add(rule, name)
    settled: set[str] = set()
    while ready:
        told = above[ready.pop()]
        waiting = [told] if isinstance(told, int) else users[told] if told not in settled else []
        if isinstance(told, str):
            settled.add(told)
        for index in waiting:
            needed[index] -= 1
            if needed[index] == 0:
                ready.append(index)
    return settled
