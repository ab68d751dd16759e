"""/help: all commands on one screen, and one in full."""

import difflib
import itertools
from collections.abc import Iterator, Mapping

from mistral_mlx.cli.terminal.size import columns
from mistral_mlx.errors import OptionError, shown

from .command import Command
from .quotes import QUOTES

# Every command, with the few words that fit into half a row of a terminal, in the two columns.
LEFT = {
    "Conversation": {
        "retry": "answer again",
        "continue": "go on with the answer",
        "edit": "change a message",
        "undo": "remove the last turn",
        "history": "show it again",
        "compact": "sum up old turns",
        "clear": "begin anew",
        "exit": "leave (or Ctrl-D)",
    },
    "Figures": {
        "show": "model and settings",
        "context": "how full it is",
        "stats": "speed of the answer",
        "tokens": "count and show tokens",
        "help": "explain a command",
    },
}
RIGHT = {
    "Files and sessions": {
        "read": "add files",
        "glob": "add files that match",
        "editor": "write in your editor",
        "copy": "copy the last answer",
        "export": "write as Markdown",
        "save": "save, as NAME",
        "load": "open another",
        "sessions": "list what is saved",
    },
    "Settings": {
        "set": "show or change one",
        "plain": "Markdown on or off",
        "system": "the system prompt",
        "schema": "answer with JSON",
        "model": "take another model",
    },
}
KEYS = f"""\
  Enter sends. A \\ at the end, Alt-Enter, or {QUOTES} around a text: several lines.
  Ctrl-C stops an answer or clears the line, Ctrl-D leaves, Ctrl-R searches.
  Tab completes. /help COMMAND tells more."""
COLUMN, NAME = 40, 15  # cells
OTHER_NAMES = {
    "?": "help",
    "h": "help",
    "bye": "exit",
    "quit": "exit",
    "q": "exit",
    "new": "clear",
    "reset": "clear",
}
LEAVING = ("exit", "quit")  # words that leave without a slash, as in other programs


def overview(commands: Mapping[str, Command]) -> str:
    """Return the help on all commands: in two columns if the terminal is wide enough."""
    left, right = list(_rows(LEFT, commands)), list(_rows(RIGHT, commands))
    if columns() < 2 * COLUMN:
        return "\n".join([*left, *right, "", KEYS])
    pairs = itertools.zip_longest(left, right, fillvalue="")
    return "\n".join([*(f"{one:<{COLUMN}}{other}".rstrip() for one, other in pairs), "", KEYS])


def about(name: str, commands: Mapping[str, Command]) -> str:
    """Return the help on one command. Raises OptionError if there is none of this name."""
    name = canonical(name)
    if name not in commands:
        raise OptionError(f"there is no command /{shown(name)}{suggestion(name, commands)}")
    return f"  {f'/{name} {commands[name].usage}'.rstrip()}: {commands[name].help}"


def canonical(name: str) -> str:
    """Return the name of a command as it is spelled here."""
    name = name.removeprefix("/").lower()
    return OTHER_NAMES.get(name, name)


def suggestion(name: str, commands: Mapping[str, Command]) -> str:
    """Return what to do instead of a command that does not exist."""
    near = difflib.get_close_matches(name, commands, n=1)
    return f"; did you mean /{near[0]}?" if near else "; /help lists them"


def _rows(groups: Mapping[str, Mapping[str, str]], commands: Mapping[str, Command]) -> Iterator[str]:
    for title, group in groups.items():
        yield title
        for name, brief in group.items():
            usage = f"/{name} {commands[name].usage}".rstrip()
            yield f"  {usage if len(usage) < NAME else f'/{name}':<{NAME}}{brief}"
