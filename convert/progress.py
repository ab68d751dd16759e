"""How long work says how far it is: a name of what is done, how much is, and of how much."""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
