"""What a slash command of the chat is, and what all of them use."""

import sys
from collections.abc import Callable
from dataclasses import dataclass

from mistral_mlx.cli.terminal.notes import wrapped
from mistral_mlx.cli.terminal.sanitize import inert
from mistral_mlx.errors import OptionError, counted, shown

from .chat import Chat

MAX_DIGITS = 9


class Leave(Exception):
    """Raised by the command that ends the chat."""


@dataclass(frozen=True)
class Command:
    """A slash command: its arguments, its line of help, and the function that gets the rest of the line."""

    usage: str
    help: str
    do: Callable[[Chat, str], None]
    completes: str = ""  # see CommandCompleter


def show(text: str) -> None:
    """Write the output of a command to stderr; only model text goes to stdout."""
    for line in text.split("\n"):
        indent = " " * (len(line) - len(line.lstrip(" ")) + 2)
        print(wrapped(inert(line) if sys.stderr.isatty() else line, indent), file=sys.stderr)


def facts(rows: list[tuple[str, str]]) -> str:
    """Return a line for each name and value, the values below each other."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in rows)


def position(rest: str, what: str, there: int | None = None) -> int:
    """Return the number in `rest`, 1 if it is empty; 1 is the last one.

    Raises OptionError for anything else, and if `there` says that there are fewer: `what`, such as "answer".
    """
    if rest and (not rest.isdecimal() or len(rest) > MAX_DIGITS or int(rest) < 1):
        raise OptionError(f"{shown(rest)} is no number of {what}s; 1 is the last one")
    n = int(rest or 1)
    if there == 0:
        raise OptionError(f"there is no {what} yet")
    if there is not None and n > there:
        raise OptionError(f"there {'is only' if there == 1 else 'are'} {counted(there, what)}; {n} was asked for")
    return n
