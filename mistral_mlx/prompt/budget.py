"""Bounds the work that a template may cause, counted in steps, not in time.

The price is the size: in full for characters that are written, a sixteenth for characters that are only read. The same
work has the same price on every machine.
"""

from collections.abc import Iterable, Iterator
from types import GeneratorType

from jinja2 import TemplateError

NODE = 4  # price of looking at an item of a list
STEP = 20  # price of any operation, in addition to its characters
READ = 16  # reading this many characters costs as much as writing one
MAX_DEPTH = 32  # of lists in lists
MAX_NUMBER_BITS = 128


class BudgetError(TemplateError):
    """A template asks for more work than its messages need."""


class Budget:
    """Counts down while a template is rendered."""

    def __init__(self, units: int) -> None:
        self.units = units
        self._left = units

    def spend(self, units: int = 0) -> None:
        """Pay for one operation on `units` characters. Raises BudgetError when nothing is left."""
        self._left -= units + STEP
        if self._left < 0:
            raise BudgetError(f"it takes more than {self.units:,} steps")

    def read(self, *values: object) -> None:
        """Pay for an operation that looks at `values`, but not at lists inside them."""
        units = 0
        for value in values:
            if isinstance(value, str):
                units += len(value) // READ
            elif isinstance(value, list | tuple | dict | range):
                units += len(value)
        self.spend(units)

    def read_deep(self, value: object) -> int:
        """Pay for an operation that looks at everything in `value`; return the number of characters."""
        characters = units = 0
        for item in self._walk(value):
            size = len(item) if isinstance(item, str | range) else 1
            characters += size
            units += NODE + (size if isinstance(item, range) else size // READ)
            if units > self._left:
                break
        self.spend(units)
        return characters

    def keep(self, value: object) -> object:
        """Pay for a new value and return it, a generator as a list. Raises BudgetError if too large."""
        if isinstance(value, GeneratorType):
            value = list(self.steps(value))
        if isinstance(value, str):
            self.spend(len(value))
        elif isinstance(value, int) and value.bit_length() > MAX_NUMBER_BITS:
            raise BudgetError(f"it computes with numbers of more than {MAX_NUMBER_BITS} bits")
        elif isinstance(value, list | tuple | dict):
            for _ in self._walk(value):
                self.spend()
        return value

    def steps(self, values: Iterable[object]) -> Iterator[object]:
        """Yield `values`, paying for each."""
        for value in values:
            self.spend()
            yield value

    def _walk(self, value: object) -> Iterator[object]:
        """Yield `value` and everything in it; an object that occurs twice is yielded twice."""
        rest = [(value, 0)]
        while rest:
            item, depth = rest.pop()
            yield item
            children: Iterable[object] = ()
            if isinstance(item, dict):
                children = [*item.keys(), *item.values()]
            elif isinstance(item, list | tuple):
                children = item
            if depth == MAX_DEPTH and children:
                raise BudgetError(f"it nests lists more than {MAX_DEPTH} deep")
            rest += [(child, depth + 1) for child in children]
