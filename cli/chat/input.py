"""Reads messages: with line editing and history on a terminal, line by line from anything else."""

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from mistral_mlx.cli.terminal.keyboard import Keyboard
from mistral_mlx.cli.terminal.notes import note
from mistral_mlx.cli.terminal.reading import STDIN, decode
from mistral_mlx.cli.terminal.signals import Interrupted
from mistral_mlx.errors import shown

from .quotes import is_quote_open, unquoted

if TYPE_CHECKING:
    from prompt_toolkit.completion import Completer
    from prompt_toolkit.history import History

LATE_S = 0.3  # a Ctrl-C so soon after typed-ahead text appeared in a prompt was meant for the answer before it
STYLES = {"": "bold", "prompt": "ansimagenta", "bottom-toolbar": "nobold", "completion-menu": "nobold"}


class Reader(Protocol):
    """Reads messages."""

    is_interactive: bool
    keyboard: Keyboard  # holds the terminal between two messages

    def read(self, default: str = "", *, mode: str = "") -> str:
        """Return the next message; `default` is in the line already, and the prompt names the `mode`.

        Raises EOFError at the end, KeyboardInterrupt for Ctrl-C: in a mode always, otherwise on an empty line.
        """
        ...

    def remember(self, text: str) -> None:
        """Put a message that was written elsewhere into the history."""
        ...


class PlainReader:
    """Reads one message per line; all lines between three quotes and three quotes are one message.

    `read` raises OptionError for a message that is not UTF-8; the next call reads the next one.
    """

    def __init__(self) -> None:
        self.is_interactive = sys.stdin.isatty()
        self.keyboard = Keyboard()
        self._n_lines = 0

    def read(self, default: str = "", *, mode: str = "") -> str:
        lines = [self._line(f"{mode}> ")]
        first = self._n_lines
        with suppress(EOFError):  # the end of the input closes the quotes
            while is_quote_open(b"\n".join(lines).decode("utf-8", "replace")):
                lines.append(self._line("… "))
        return unquoted("\n".join(decode(line, f"line {n} of {STDIN}") for n, line in enumerate(lines, start=first)))

    def remember(self, text: str) -> None:
        pass  # it has no history

    def _line(self, prompt: str) -> bytes:
        if self.is_interactive:
            print(prompt, end="", file=sys.stderr, flush=True)
        try:
            line = sys.stdin.buffer.readline()
        except Interrupted as interrupt:
            if interrupt.number != signal.SIGINT or not self.is_interactive:
                raise
            print(file=sys.stderr)
            raise KeyboardInterrupt from None
        if not line:
            raise EOFError
        self._n_lines += 1
        return line.rstrip(b"\r\n")


class TerminalReader:
    """Edits lines. `toolbar(columns)` returns the line below the prompt; `on_shown` is called with the first prompt."""

    is_interactive = True

    def __init__(
        self,
        *,
        history: Path | None,
        completer: "Completer",
        toolbar: Callable[[int], str],
        on_shown: Callable[[], None],
    ) -> None:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.output import ColorDepth
        from prompt_toolkit.styles import Style

        from .keys import key_bindings
        from .resize import erase_all_on_resize

        self._on_shown = on_shown
        self._mode, self._has_typed, self._late_until = "", False, 0.0
        self._prompt: PromptSession[str] = PromptSession(
            lambda: [("class:prompt", f"{self._mode}> ")],
            multiline=True,
            prompt_continuation=lambda width, line, wraps: "  " if wraps else "… ",
            history=_history(history),
            key_bindings=key_bindings(
                clears=lambda: not self._mode,
                is_late=lambda: time.monotonic() < self._late_until,
            ),
            completer=completer,
            complete_while_typing=False,
            enable_history_search=False,  # Ctrl-R searches
            search_ignore_case=True,
            reserve_space_for_menu=4,
            bottom_toolbar=lambda: toolbar(self._prompt.output.get_size().columns),
            color_depth=ColorDepth.DEPTH_1_BIT if os.environ.get("NO_COLOR") else None,
            enable_suspend=True,
            style=Style.from_dict(STYLES),
        )
        self._prompt.app.after_render += lambda app: self._shown()
        self.keyboard = Keyboard(self._prompt.app.input)
        erase_all_on_resize(self._prompt.app)

    def read(self, default: str = "", *, mode: str = "") -> str:
        from prompt_toolkit.input.typeahead import get_typeahead

        self._mode = mode
        try:
            typed = self.keyboard.take()
            self._has_typed, self._late_until = bool(typed), 0.0
            text = self._prompt.prompt(default="\n".join(filter(None, (default, typed))))
        except Interrupted:
            if unsent := self._prompt.default_buffer.text:
                self.remember(unsent)
            raise
        finally:
            self.keyboard.keep(get_typeahead(self._prompt.app.input))
            self.keyboard.ended_prompt()
        return unquoted(as_text(text))

    def remember(self, text: str) -> None:
        self._prompt.history.append_string(text)

    def refresh(self) -> None:
        """Draw the toolbar again; may be called in any thread."""
        self._prompt.app.invalidate()

    def fail(self, error: BaseException) -> None:
        """Make a running `read` raise `error`; may be called in any thread."""
        app = self._prompt.app
        if app.loop is not None and app.is_running:
            app.loop.call_soon_threadsafe(lambda: app.is_running and not app.is_done and app.exit(exception=error))

    def print_above(self, write: Callable[[], None]) -> None:
        """Call `write`, which prints, with the prompt hidden meanwhile; may be called in any thread."""
        from prompt_toolkit.application import run_in_terminal

        app = self._prompt.app
        if app.loop is not None and app.is_running:
            app.loop.call_soon_threadsafe(lambda: run_in_terminal(write))
        else:
            write()

    def _shown(self) -> None:
        if self._has_typed:
            self._has_typed, self._late_until = False, time.monotonic() + LATE_S
        on_shown, self._on_shown = self._on_shown, lambda: None
        on_shown()


def is_terminal() -> bool:
    """Whether stdin and stdout are a terminal that can move its cursor."""
    return sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown", "")


def _history(path: Path | None) -> "History":
    """Return the history in the file `path`, mode 0600; in memory if `path` is None or cannot be written."""
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    class File(FileHistory):
        def store_string(self, string: str) -> None:
            with suppress(OSError):  # a full disk
                super().store_string(as_text(string))

    if path is None:
        return InMemoryHistory()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.chmod(0o600)
        path.open("r+b").close()
    except OSError as error:
        note(f"what is typed is not remembered: {error.strerror}: {shown(str(path), limit=200)}")
        return InMemoryHistory()
    return File(str(path))


def as_text(typed: str) -> str:
    """Return `typed` with U+FFFD for bytes that are not UTF-8, which the terminal gives as surrogates."""
    return typed.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
