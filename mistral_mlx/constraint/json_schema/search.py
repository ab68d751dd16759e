"""Where patterns match: the strings in which one finds a match, as an expression, and how hard it is to follow."""

from functools import lru_cache

from .alphabet import CHARACTER, EVERYTHING, WIDE_CHARACTER, Ranges, has, spelled
from .expression import Anchor, Choice, Class, Node, PatternError, Repeat, Sequence, parsed

MAX_REPEATED = 2000  # characters, after writing all counts out
MAX_WORK = 200_000  # steps to follow one pattern
ANYTHING = Repeat(Class(EVERYTHING, EVERYTHING), 0, None)
NEW_LINE = Class(((10, 10),), ((10, 10),))


@lru_cache(maxsize=128)
def searched(pattern: str, *, wide: bool) -> str:
    """Return the expression of the insides of all JSON strings in which `pattern` finds a match.

    Raises PatternError.
    """
    return _written(_whole(pattern, wide), wide)


@lru_cache(maxsize=512)
def width(pattern: str) -> int:
    """Return in how many ways at most a text of one length can stand towards a match of `pattern`.

    Joining patterns, or a pattern and a length, multiplies this number. Raises PatternError.
    """
    return _program(pattern, True).width()


def matches(pattern: str, text: str, *, wide: bool) -> bool:
    """Say whether `pattern` surely finds a match in `text`; with `wide`, whether it might. Raises PatternError."""
    return _program(pattern, wide).fits(text)


@lru_cache(maxsize=128)
def _program(pattern: str, wide: bool) -> "_Program":
    return _Program(_whole(pattern, wide), wide)


def _whole(pattern: str, wide: bool) -> Node:
    node = _placed(parsed(pattern), wide, [ANYTHING], [ANYTHING])
    if _size(node) > MAX_REPEATED:
        raise PatternError(f"repeats more than {MAX_REPEATED:,} characters")
    return node


def _placed(node: Node, wide: bool, left: list[Node], right: list[Node]) -> Node:
    """Return `node` for whole texts: `left` and `right` stand around it where no anchor does."""
    if isinstance(node, Choice):
        return Choice(tuple(_placed(n, wide, left, right) for n in node.nodes))
    nodes = list(node.nodes) if isinstance(node, Sequence) else [node]
    while nodes and nodes[0] == Anchor("^"):
        nodes, left = nodes[1:], []
    while nodes and nodes[-1] == Anchor("$"):
        nodes, right = nodes[:-1], [Repeat(NEW_LINE, 0, 1)] if wide else []  # Python: also before a last line feed
    if len(nodes) == 1 and isinstance(nodes[0], Choice | Sequence):
        return _placed(nodes[0], wide, left, right)
    return Sequence((*left, *nodes, *right))


def _size(node: Node) -> int:
    if isinstance(node, Repeat):
        return max(node.least, node.most or 0, 1) * _size(node.node)
    if isinstance(node, Sequence | Choice):
        return sum(_size(n) for n in node.nodes) + 1
    return 1


def _written(node: Node, wide: bool) -> str:
    if node == ANYTHING:
        return (WIDE_CHARACTER if wide else CHARACTER) + "*"
    if isinstance(node, Class):
        return spelled(node.wide if wide else node.narrow, wide=wide)
    if isinstance(node, Repeat):
        return f"(?:{_written(node.node, wide)}){{{node.least},{'' if node.most is None else node.most}}}"
    if isinstance(node, Anchor):
        raise PatternError(f"has {node.mark} in the middle")
    separator = "|" if isinstance(node, Choice) else ""
    return f"(?:{separator.join(_written(n, wide) for n in node.nodes)})"


class _Program:
    """A pattern as steps: a class and the steps behind it. A text stands towards it at a set of steps."""

    def __init__(self, node: Node, wide: bool) -> None:
        self.wide = wide
        self.classes: list[Ranges] = []
        self.behind: list[frozenset[int]] = []
        self.work = 0
        self.start = self._before(node, frozenset([-1]))  # -1: the end

    def fits(self, text: str) -> bool:
        """Say whether the whole of `text` follows the steps."""
        steps = self.start
        for c in text:
            steps = frozenset[int]().union(*(self.behind[i] for i in steps if i >= 0 and has(self.classes[i], ord(c))))
            if not steps:
                return False
        return -1 in steps

    def width(self) -> int:
        """Return the greatest number of sets of steps that texts of one length reach for the first time."""
        edges = sorted({0, *(edge for ranges in self.classes for low, high in ranges for edge in (low, high + 1))})
        columns = {tuple(has(ranges, edge) for ranges in self.classes) for edge in edges}
        level, seen, most = {self.start}, {self.start}, 1
        while level:
            most = max(most, len(level))
            self._add(sum(len(steps) for steps in level) * len(columns))
            level = {self._after(steps, column) for steps in level for column in columns} - seen
            seen |= level
        return most

    def _after(self, steps: frozenset[int], column: tuple[bool, ...]) -> frozenset[int]:
        return frozenset[int]().union(*(self.behind[step] for step in steps if step >= 0 and column[step]))

    def _before(self, node: Node, behind: frozenset[int]) -> frozenset[int]:
        """Add the steps of `node`, behind which `behind` stands; return those it begins with."""
        self._add(1 + len(behind))
        if isinstance(node, Class):
            self.classes.append(node.wide if self.wide else node.narrow)
            self.behind.append(behind)
            return frozenset([len(self.classes) - 1])
        if isinstance(node, Sequence):
            for one in reversed(node.nodes):
                behind = self._before(one, behind)
            return behind
        if isinstance(node, Choice):
            return frozenset[int]().union(*(self._before(one, behind) for one in node.nodes))
        if isinstance(node, Anchor):
            raise PatternError(f"has {node.mark} in the middle")
        if node.most is None:
            behind = self._repeated(node.node, behind)
        tail = behind
        for _ in range((node.most or node.least) - node.least):
            behind = tail | self._before(node.node, behind)
        for _ in range(node.least):
            behind = self._before(node.node, behind)
        return behind

    def _repeated(self, node: Node, behind: frozenset[int]) -> frozenset[int]:
        """Add the steps of `node`, any number of times."""
        first = len(self.classes)
        begin = self._before(node, behind | {-2})  # -2: the beginning of `node`, known after it
        all_ = behind | (begin - {-2})
        for i in range(first, len(self.classes)):
            if -2 in self.behind[i]:
                self.behind[i] = (self.behind[i] - {-2}) | all_
        return all_

    def _add(self, n: int) -> None:
        self.work += n
        if self.work > MAX_WORK:
            raise PatternError("can match in too many ways")
