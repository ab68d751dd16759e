"""Starts a chat: shows the prompt, and loads the model in the background."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mistral_mlx.cli.models import registry
from mistral_mlx.cli.terminal.streams import write_raw
from mistral_mlx.errors import MistralMLXError

from . import loop, status
from .background import Background
from .chat import Chat
from .input import PlainReader, Reader, TerminalReader, is_terminal
from .opening import ChatSetup, offer, open_session


def run(setup: ChatSetup, *, history: Path | None) -> MistralMLXError | None:
    """Chat until the input ends; return the last error. Raises what opening the model raised."""
    loading = Background(lambda: open_session(setup))
    chat = Chat(setup, loading, setup.settings)
    if is_terminal():
        reader = _terminal_reader(chat, history)
    else:
        reader = PlainReader()
        _ = chat.session  # nobody waits at a prompt
    chat.is_interactive = reader.is_interactive
    chat.keyboard, chat.status = reader.keyboard, lambda columns: status.while_answering(chat, columns)
    chat.remember = reader.remember
    try:
        with chat.keyboard, _typed_is_kept(chat):
            _greet(chat)
            failed = loop.run(chat, reader)
    finally:
        chat.leave()
    if chat.saving.error and chat.is_interactive:
        chat.notes.always("the end of this conversation is not saved")
    return failed or chat.saving.error


@contextmanager
def _typed_is_kept(chat: Chat) -> Iterator[None]:
    """Where an error ends the chat, put what was typed ahead into the history; the shell must not run it."""
    try:
        yield
    except BaseException:
        with suppress(OSError):  # the terminal may be gone
            if typed := chat.keyboard.take():
                chat.remember(typed)
        raise


def _greet(chat: Chat) -> None:
    if is_terminal():
        write_raw("\r\x1b[K")  # over the keys that were typed while the program started
    chat.say(f"chatting with {chat.setup.opener.name}; /help lists the commands, Ctrl-D leaves")
    if not is_terminal():
        _introduce(chat)


def _introduce(chat: Chat) -> None:
    """Say what session goes on, and that the model comes with a system prompt."""
    if chat.setup.resumes:
        chat.recap()
    if remark := offer(chat.opened):
        chat.say(remark)


def _terminal_reader(chat: Chat, history: Path | None) -> Reader:
    from .words import CommandCompleter

    words = {
        "sessions": chat.store.names,
        "models": lambda: sorted(registry.registered()),
    }
    kinds = {name: command.completes for name, command in loop.COMMANDS.items()}
    helps = {name: command.help for name, command in loop.COMMANDS.items()}
    reader = TerminalReader(
        history=history,
        completer=CommandCompleter(kinds, words, helps),
        toolbar=lambda columns: status.at_the_prompt(chat, columns),
        on_shown=chat.loading.start,  # importing MLX would hold up the first prompt
    )

    def on_end() -> None:
        if chat.loading.error:
            reader.fail(chat.loading.error)
            return
        if chat.setup.resumes or offer(chat.loading.result()):
            reader.print_above(lambda: _introduce(chat))
        reader.refresh()

    chat.loading.on_end = on_end
    return reader
