"""The grammar of a goal: its nodes as rules of Lark, without what no answer can finish."""

from collections.abc import Callable, Iterable

from mistral_mlx.errors import OptionError

from .meaning import Reader
from .nodes import Array, Goal, Node, Object, Property, Text
from .numbers import Bounds, decimals
from .order import ordered
from .terminals import STRING, texts

MAX_GOALS = 5000
MAX_RULES = 15_000  # llguidance has numbers for 65,535 symbols
MAX_COUNTED = 64  # properties of an object that bounds their number
FREE_LEVELS = 12  # how deep a value may be nested of which the schema says nothing


class Emission:
    """Writes the grammar; `blank` is the expression of the white space between two marks."""

    def __init__(self, reader: Reader, blank: str) -> None:
        self.reader = reader
        self.goals: dict[Goal, tuple[Node, ...] | None] = {}
        self.rules: dict[str, str] = {}
        self.shared: dict[str, str] = {}
        self.terminals: dict[str, str] = {}
        self.rule_names: dict[Goal, str] = {}
        marks = {"OPEN": r"\{~", "CLOSE": r"~\}", "EMPTY": r"\{~\}", "LEFT": r"\[~", "RIGHT": r"~\]", "NONE": r"\[~\]"}
        marks |= {"COMMA": "~,~", "COLON": "~:~"}
        self.marks = {name: f"/{pattern.replace('~', blank)}/" for name, pattern in marks.items()}
        self.finite: set[Goal] = set()

    def grammar(self, goal: Goal) -> str:
        """Return the grammar of `goal` as a text of Lark. Raises OptionError."""
        self._explore(goal)
        self._find_finite()
        self._check_names()
        if goal not in self.finite:
            raise OptionError("the schema allows no answer at all; look for rules of it that exclude each other")
        start = self._rule(goal)
        for one in list(self.goals):
            if one in self.finite and self.goals[one] is not None:
                name = self._rule(one)
                self.rules[name] = " | ".join(dict.fromkeys(self._alternatives(self.goals[one] or ())))
        lines = ordered(start, self.rules)
        lines += [f"{name}: {text}" for name, text in self.marks.items()]
        lines += [f"{name}: {text}" for text, name in self.terminals.items()]
        return "\n".join(lines) + "\n"

    def _explore(self, first: Goal) -> None:
        """Take apart all goals that can be reached."""
        waiting = [first]
        while waiting:
            goal = waiting.pop()
            if goal in self.goals:
                continue
            if len(self.goals) >= MAX_GOALS:
                raise OptionError(f"the schema has more than {MAX_GOALS:,} different parts; give a smaller one")
            self.goals[goal] = nodes = self.reader.nodes(goal)
            waiting += [below for node in nodes or () for below in _goals(node)]

    def _find_finite(self) -> None:
        """Find the goals that some answer of finite length fits."""
        self.finite = {goal for goal, nodes in self.goals.items() if nodes is None}
        grown = True
        while grown:
            before = len(self.finite)
            for goal, nodes in self.goals.items():
                if goal not in self.finite and any(self._is_finite(node) for node in nodes or ()):
                    self.finite.add(goal)
            grown = len(self.finite) > before

    def _check_names(self) -> None:
        """Refuse objects that need several names which the schema does not list: a name may come twice."""
        for node in (node for nodes in self.goals.values() for node in nodes or ()):
            if isinstance(node, Object) and not self._variants(node):
                named, others = self._members(node)
                possible = node.most is None or node.most >= sum(one.required for one in node.named)
                if others and possible and node.least > len(named) + 1:
                    words = f"has 'minProperties' of {node.least}, too many for names that it does not list,"
                    raise node.place.fault(words, "list them in properties, or give 1 at most beside those")

    def _is_finite(self, node: Node) -> bool:
        if isinstance(node, Text):
            return True
        if isinstance(node, Array) and node.once:
            return node.least <= len(node.once)
        if isinstance(node, Array):
            _, most = self._array_parts(node)
            return most is None or node.least <= most
        return bool(self._variants(node))

    def _rule(self, goal: Goal) -> str:
        """Return the name of the rule of a goal."""
        if self.goals[goal] is None:
            return self._free()
        return self.rule_names.setdefault(goal, f"g{len(self.rule_names)}")

    def _terminal(self, text: str) -> str:
        return self.terminals.setdefault(text, f"T{len(self.terminals)}")

    def _shared(self, text: str) -> str:
        """Return the name of the rule with this text, made where it is first needed."""
        if text not in self.shared:
            self.shared[text] = f"s{len(self.shared)}"
            self.rules[self.shared[text]] = text
            if len(self.rules) > MAX_RULES:
                raise OptionError("the schema has too many properties and branches together; give a smaller one")
        return self.shared[text]

    def _alternatives(self, nodes: Iterable[Node]) -> Iterable[str]:
        for node in nodes:
            if isinstance(node, Text):
                yield self._terminal(node.terminal)
            elif isinstance(node, Array):
                yield from self._array(node)
            else:
                yield from self._object(node)

    def _array_parts(self, node: Array) -> tuple[tuple[Goal, ...], int | None]:
        """Return the single items that can be there, and how many items there can be at most."""
        limits = [len(node.single)] if node.rest not in self.finite else []
        limits += [i for i, goal in enumerate(node.single) if goal not in self.finite][:1]
        limits += [] if node.most is None else [node.most]
        most = min(limits, default=None)
        return node.single[:most], most

    def _array(self, node: Array) -> Iterable[str]:
        single, most = self._array_parts(node)
        least = node.least
        if least == 0:
            yield "NONE"
            least = 1
        if node.once:
            members = _Members([(self._terminal(one), False) for one in node.once], self._shared)
            counted = members.some(0, len(node.once), False, least, len(node.once) if node.most is None else node.most)
            if counted is not None:
                yield f"LEFT {counted} RIGHT"
            return
        if most is not None and most < least:
            return
        n = max(len(single), 1)  # items written one by one
        items = [self._rule(single[i] if i < len(single) else node.rest) for i in range(n)]
        room = None if most is None else most - n
        tail = "" if room == 0 else _times(f"COMMA {self._rule(node.rest)}", max(least - n, 0), room)
        for i in range(n - 1, least - 1, -1):
            tail = f"({self._shared(f'COMMA {items[i]} {tail}')})?"
        yield f"LEFT {' COMMA '.join(items[:least])} {tail} RIGHT"

    def _variants(self, node: Object) -> list[tuple[int, int, int, int | None]]:
        """Return the ways to count properties: at least and at most so many with names of their own, and of others.

        Others may repeat a name, so several of them count as one.
        """
        named, others = self._members(node)
        required = sum(one.required for one in node.named)
        if sum(one.required for one in named) < required:
            return []
        n, least, most = len(named), node.least, node.most
        if most is None and least <= required:
            return [(required, n, 0, None if others else 0)]
        if most is None:
            ways = [(least, n, 0, None if others else 0)] if n >= least else []
            return ways + ([(least - 1, least - 1, 1, None)] if others and required < least <= n + 1 else [])
        if not others and required >= least and n <= most:
            return [(required, n, 0, 0)]
        counts = range(max(required, least - bool(others)), min(n, most) + 1)
        ways = [(c, c, int(c < least), most - c if others else 0) for c in counts]
        return [(c, d, few, many) for c, d, few, many in ways if many is None or few <= many]

    def _members(self, node: Object) -> tuple[list[Property], list[tuple[str, Goal]]]:
        """Return the properties and the others that some answer can have."""
        named = [one for one in node.named if one.goal in self.finite]
        return named, [(terminal, goal) for terminal, goal in node.others if goal in self.finite]

    def _object(self, node: Object) -> Iterable[str]:
        named, others = self._members(node)
        variants = self._variants(node)
        free = {(sum(one.required for one in named), len(named)), (1, len(named))}
        if len(named) > MAX_COUNTED and any(variant[:2] not in free for variant in variants):
            raise node.place.fault("bounds the number of too many properties", "leave min- and maxProperties out")
        pairs = [f"{self._terminal(terminal)} COLON {self._rule(goal)}" for terminal, goal in others]
        other = self._shared(" | ".join(pairs)) if pairs else ""
        members = _Members([self._property(one) for one in named], self._shared)
        for least, most, few, many in variants:
            if least == 0 and few == 0:
                yield "EMPTY"
            if least == 0 and many != 0:
                more = _times(f"COMMA {other}", max(few - 1, 0), None if many is None else many - 1)
                yield f"OPEN {other} {more} CLOSE"
            if most:
                tail = "" if many == 0 else _times(f"COMMA {other}", few, many)
                yield f"OPEN {members.some(0, len(named), False, max(least, 1), most)} {tail} CLOSE"

    def _property(self, one: Property) -> tuple[str, bool]:
        return f"{self._terminal(texts([one.name]))} COLON {self._rule(one.goal)}", one.required

    def _free(self) -> str:
        """Return the name of the rule of any value at all."""
        if "free0" not in self.rules:
            number = f"/{decimals(Bounds())}/"
            scalar = " | ".join(self._terminal(t) for t in ("/null/", "/true/", "/false/", number, STRING))
            key = self._terminal(STRING)
            for i in range(FREE_LEVELS):
                item, member = f"free{i + 1}", f"{key} COLON free{i + 1}"
                array = f"NONE | LEFT {item} (COMMA {item})* RIGHT"
                self.rules[f"free{i}"] = f"{scalar} | {array} | EMPTY | OPEN {member} (COMMA {member})* CLOSE"
            self.rules[f"free{FREE_LEVELS}"] = f"{scalar} | NONE | EMPTY"
        return "free0"


class _Members:
    """Writes which of the named properties of an object may stand there, as rules over halves of their list."""

    def __init__(self, items: list[tuple[str, bool]], shared: Callable[[str], str]) -> None:
        self.items = items
        self.shared = shared
        self.written: dict[tuple[int, int, bool, int, int], str | None] = {}
        self.required = [0]
        for _, required in items:
            self.required.append(self.required[-1] + required)

    def some(self, start: int, end: int, behind: bool, least: int, most: int) -> str | None:
        """Return the rule of `least` to `most` of the properties from `start` to `end`; None if that cannot be.

        With `behind`, something stands before them, and each has a comma in front.
        """
        n_required = self.required[end] - self.required[start]
        least, most = max(least, n_required), min(most, end - start)
        if least > most:
            return None
        if most == 0:
            return ""
        if end - start == 1:
            item = self.items[start][0]
            return item if not behind else f"COMMA {item}" if least else f"(COMMA {item})?"
        key = start, end, behind, least, most
        if key not in self.written:
            ways = list(self._halves(*key))
            self.written[key] = self.shared(" | ".join(ways)) if ways else None
        return self.written[key]

    def _halves(self, start: int, end: int, behind: bool, least: int, most: int) -> Iterable[str]:
        middle = (start + end) // 2
        first = self.required[middle] - self.required[start]
        second = self.required[end] - self.required[middle]
        if most == end - start and least == first + second and behind:
            splits = [(first, middle - start, second, end - middle)]
        elif most == end - start and least == max(first + second, 1):
            splits = [(max(first, 1), middle - start, second, end - middle)]
            splits += [] if first else [(0, 0, max(second, 1), end - middle)]
        else:
            splits = [(i, i, max(least - i, 0), most - i) for i in range(first, min(middle - start, most) + 1)]
        for few, many, low, high in splits:
            left = self.some(start, middle, behind, few, many)
            right = self.some(middle, end, behind or few > 0, low if behind or few else max(low, 1), high)
            if left is not None and right is not None and f"{left}{right}":
                yield f"{left} {right}".strip()


def _goals(node: Node) -> Iterable[Goal]:
    """Return the goals that the parts of a node must fit."""
    if isinstance(node, Array):
        return (*node.single, node.rest)
    if isinstance(node, Object):
        return (*(one.goal for one in node.named), *(goal for _, goal in node.others))
    return ()


def _times(text: str, least: int, most: int | None) -> str:
    """Return the rule of `text` so many times."""
    if most == 0:
        return ""
    if least == 0 and most is None:
        return f"({text})*"
    return f"({text}){{{least},{'' if most is None else most}}}"
