"""The start of a chat: a prompt at once, and the model loading behind it."""

from pathlib import Path

from mistral_mlx.errors import MistralMLXError

from . import registry, toolbar
from .background import Background
from .chat import COMMANDS, Chat
from .chat_input import PlainReader, Reader, TerminalReader, is_terminal
from .chat_opening import Conversation, Opener, open_session, recap
from .chat_settings import NAMES


def run(opener: Opener, wanted: Conversation, *, given: frozenset[str], history: Path | None) -> MistralMLXError | None:
    """Chat until the input ends; return the last error. Raises what opening the model raised."""
    loading = Background(lambda: open_session(opener, wanted))
    chat = Chat(loading, opener, wanted.settings, wanted.store, given, quiet=opener.quiet)
    if is_terminal():
        reader = _terminal_reader(chat, history, is_resumed=wanted.resumes is not None)
    else:
        reader = PlainReader()
        _ = chat.session  # nobody waits at a prompt
    chat.is_interactive = reader.is_interactive
    chat.say(f"chatting with {chat.opener.name}; /help lists the commands, Ctrl-D leaves")
    if wanted.resumes and not is_terminal():
        chat.say(recap(chat.opened))
    return chat.run(reader)


def _terminal_reader(chat: Chat, history: Path | None, *, is_resumed: bool) -> Reader:
    from .chat_completion import CommandCompleter

    words = {
        "sessions": chat.store.names,
        "settings": lambda: list(NAMES),
        "models": lambda: sorted(registry.registered()),
    }
    kinds = {name: command.completes for name, command in COMMANDS.items()}
    reader = TerminalReader(
        history=history,
        completer=CommandCompleter(kinds, words),
        toolbar=lambda columns: toolbar.line(chat.status(), columns),
        on_shown=chat.loading.start,  # importing MLX would hold up the first prompt
    )

    def on_end() -> None:
        if chat.loading.error:
            reader.fail(chat.loading.error)
            return
        if is_resumed:
            reader.print_above(lambda: chat.say(recap(chat.opened)))
        reader.refresh()

    chat.loading.on_end = on_end
    return reader
