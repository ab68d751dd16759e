"""The loop of the chat: reads messages and slash commands until the input ends."""

import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

from mistral_mlx.cli.terminal.signals import Interrupted
from mistral_mlx.cli.terminal.size import columns, rows
from mistral_mlx.errors import GroupError, MistralMLXError, OptionError, shown

from .chat import Chat
from .command import Command, Leave, show
from .commands import CONVERSATION
from .file_commands import FILES
from .help import LEAVING, about, canonical, overview, suggestion
from .input import Reader, is_terminal

_WORD = re.compile(r"[a-z][a-z_-]*")


def _help(chat: Chat, rest: str) -> None:
    show(about(rest, COMMANDS) if rest else overview(COMMANDS))


COMMANDS = {"help": Command("[COMMAND]", "list the commands, or explain one", _help), **CONVERSATION, **FILES}


def run(chat: Chat, reader: Reader) -> MistralMLXError | None:
    """Read messages and answer them until the input ends or Ctrl-C comes twice; return the last error.

    Raises what opening the model raised.
    """
    n_interrupts, failed = 0, None
    while n_interrupts < 2:
        try:
            n, text = chat.edit or (0, _returned(chat))
            text = reader.read(text, mode=f"edit {n}" if n else "")
            n_interrupts = 0
            with _may_be_interrupted(chat), _files_may_fail():
                handle(chat, text)
        except KeyboardInterrupt:
            if chat.edit:
                chat.edit = None
                chat.say("nothing is changed")
                continue
            n_interrupts += 1
            if n_interrupts == 1:
                chat.say("Ctrl-C again, or Ctrl-D, leaves")
        except (EOFError, Leave):
            break
        except MistralMLXError as error:
            if error is chat.loading.error or isinstance(error, GroupError):  # nothing can be answered any more
                raise
            chat.notes.error(str(error))
            failed = error
    return failed


def _returned(chat: Chat) -> str:
    """Return the message that got no answer, unless it would fill the screen and hide why."""
    text, chat.returned = chat.returned, ""
    n_rows = sum(1 + len(line) // columns() for line in text.split("\n"))
    if is_terminal() and n_rows > rows() - 8:
        chat.say("the message is not in the prompt, as it is long; Up brings it back")
        return ""
    return text


def handle(chat: Chat, text: str) -> None:
    """Answer a message, or do what a slash command says. Raises OptionError for an unknown command."""
    chat.entered = time.perf_counter()
    if chat.is_interactive and text.strip().lower() in LEAVING:
        raise Leave
    if (command := command_in(text)) is not None:
        name, rest = command
        if name not in COMMANDS:
            raise OptionError(
                f"there is no command /{shown(name)}{suggestion(name, COMMANDS)} (a blank before the slash sends it)"
            )
        if rest and not COMMANDS[name].usage:
            raise OptionError(f"/{name} takes no text; {shown(rest)} was given")
        COMMANDS[name].do(chat, rest)
    elif text.strip():
        chat.ask(text)


def command_in(text: str) -> tuple[str, str] | None:
    """Return the name and the rest of a slash command; None if `text` is a message.

    A text that begins with a slash is a message, too, if its first word can be no command (a path, a comment), or if
    the word is no command and the text has several lines.
    """
    if text.strip() == "/":
        return "help", ""
    if not text.startswith("/"):
        return None
    word, *rest = text.split(maxsplit=1)
    name = canonical(word)
    if not (_WORD.fullmatch(name) or name in COMMANDS):
        return None
    return None if "\n" in text.strip() and name not in COMMANDS else (name, "".join(rest).strip())


@contextmanager
def _may_be_interrupted(chat: Chat) -> Iterator[None]:
    """On a terminal, Ctrl-C leads back to the prompt, also while the model is loading."""
    try:
        yield
    except Interrupted as interrupt:
        if interrupt.number != signal.SIGINT or not chat.is_interactive:
            raise
        chat.notes.always("interrupted")


@contextmanager
def _files_may_fail() -> Iterator[None]:
    """Make an error of the system, of a file that a command was given, one of the turn and not of the chat."""
    try:
        yield
    except OSError as error:
        where = "" if error.filename is None else f": {shown(str(error.filename), limit=200)}"
        raise OptionError(f"{error.strerror or error}{where}") from error
