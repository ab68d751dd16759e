"""The loop of the chat: reads messages and slash commands until the input ends."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

from mistral_mlx.cli.terminal.signals import Interrupted
from mistral_mlx.errors import MistralMLXError, OptionError, shown

from .chat import Chat
from .command import Command, Leave, show
from .commands import CONVERSATION
from .file_commands import FILES
from .input import Reader
from .quotes import QUOTES


def _help(chat: Chat, rest: str) -> None:
    for name, command in COMMANDS.items():
        show(f"  {f'/{name} {command.usage}':<18}{command.help}")
    show(f"  {QUOTES} before and after a message of several lines; Alt-Enter, or a \\ at the end, begins a new line")
    show("  Ctrl-C stops an answer or clears the line, Ctrl-R searches, Tab completes, Ctrl-D leaves")


COMMANDS = {"help": Command("", "list the commands", _help), **CONVERSATION, **FILES}


def run(chat: Chat, reader: Reader) -> MistralMLXError | None:
    """Read messages and answer them until the input ends or Ctrl-C comes twice; return the last error.

    Raises what opening the model raised.
    """
    n_interrupts, failed = 0, None
    while n_interrupts < 2:
        try:
            n, replaced = chat.edit or (0, "")
            text = reader.read(replaced, mode=f"edit {n}" if n else "")
            n_interrupts = 0
            with _may_be_interrupted(chat):
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
            if error is chat.loading.error:
                raise
            chat.notes.error(str(error))
            failed = error
    return failed


def handle(chat: Chat, text: str) -> None:
    """Answer a message, or do what a slash command says. Raises OptionError for an unknown command."""
    chat.entered = time.perf_counter()
    if not text.strip():
        return
    if text.startswith("/"):
        name, _, rest = text[1:].strip().partition(" ")
        if name not in COMMANDS:
            raise OptionError(
                f"there is no command /{shown(name)}; /help lists them (a message cannot begin with a slash; put a "
                "space before it)"
            )
        COMMANDS[name].do(chat, rest.strip())
    else:
        chat.ask(text)


@contextmanager
def _may_be_interrupted(chat: Chat) -> Iterator[None]:
    """On a terminal, Ctrl-C leads back to the prompt, also while the model is loading."""
    try:
        yield
    except Interrupted as interrupt:
        if interrupt.number != signal.SIGINT or not chat.is_interactive:
            raise
        chat.notes.always("interrupted; the message was not sent")
