"""What a slash command of the chat is, and what all of them use."""

import sys
from collections.abc import Callable
from dataclasses import dataclass

from mistral_mlx.cli.terminal.sanitize import inert
from mistral_mlx.errors import OptionError, shown

from .chat import Chat


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
    print(inert(text) if sys.stderr.isatty() else text, file=sys.stderr)


def facts(rows: list[tuple[str, str]]) -> str:
    """Return a line for each name and value, the values below each other."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in rows)


def position(rest: str, what: str) -> int:
    """Return the number in `rest`, 1 if it is empty; 1 is the last one. Raises OptionError for anything else."""
    if not rest:
        return 1
    if not rest.isdecimal() or int(rest) < 1:
        raise OptionError(f"{shown(rest)} is no number of {what}; 1 is the last one")
    return int(rest)
