"""The rules of a grammar: what they are made of, and whether they can be used. It knows no notation.

A rule is a tree of nodes: words, expressions, names of rules, sequences, choices and repetitions.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

MAX_NODES = 6_000
MAX_NESTING = 50  # of groups
MAX_DEPTH = 200  # of groups and rules inside each other: llguidance recurses, and a thread's stack may be small


class GrammarFault(ValueError):
    """What is wrong with a grammar, and where."""


@dataclass(frozen=True)
class Size:
    """How many letters an expression has with all repetitions and rules written out, and how many choices."""

    letters: int
    choices: int = 0


@dataclass(frozen=True)
class Word:
    """Letters as they stand."""

    text: str
    ignoring_case: bool = False


@dataclass(frozen=True)
class Expression:
    """A regular expression in llguidance's notation, and its size."""

    text: str
    size: "Size" = Size(1)


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


def check_depth(rules: Rules, start: str) -> None:
    """Raise GrammarFault if rules that refer to rules, each read where it is met first, lie too deep in each other."""
    seen, path = {start}, [(0, _places(rules[start]))]
    while path:
        depth, places = path[-1]
        for name, nesting in places:
            if depth + nesting > MAX_DEPTH:
                raise GrammarFault(f"has the rule {name}, which lies more than {MAX_DEPTH} rules and groups deep")
            if name not in seen:
                seen.add(name)
                path.append((depth + nesting, _places(rules[name])))
                break
        else:
            path.pop()


def _places(node: Node, nesting: int = 1) -> Iterator[tuple[str, int]]:
    """Yield the names that a node refers to, and how deep in it they stand."""
    if isinstance(node, Name):
        yield node.name, nesting
    for child in children(node):
        yield from _places(child, nesting + 1)


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


def sizes(rules: Rules, wanted: list[str], limit: int) -> dict[str, Size]:
    """Return the size of each rule of `wanted`, which must be plain ones, and of those that they refer to.

    A number above `limit` only says that there are more.
    """
    found: dict[str, Size] = {}
    waiting = list(wanted)
    while waiting:
        rule = waiting[-1]
        missing = [] if rule in found else [name for name in names(rules[rule]) if name.name not in found]
        waiting += dict.fromkeys(name.name for name in missing)
        if not missing:
            found[rule] = found.get(rule) or _size(rules[rule], found, limit)
            waiting.pop()
    return found


def _size(node: Node, found: dict[str, Size], limit: int) -> Size:
    match node:
        case Word(text):
            return Size(max(len(text), 1))
        case Expression(_, size):
            return size
        case Name(name):
            return found[name]
    inner = [_size(child, found, limit) for child in children(node)]
    letters, choices = sum(size.letters for size in inner), sum(size.choices for size in inner)
    if isinstance(node, Repeat):
        letters *= max(node.least, node.most or 1)
    choices += not isinstance(node, Sequence)
    return Size(min(max(letters, 1), limit + 1), min(choices, limit + 1))


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
