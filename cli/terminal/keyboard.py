"""The keyboard while the program writes: no key is shown or lost, and every way out restores the terminal."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prompt_toolkit.input import Input
    from prompt_toolkit.key_binding.key_processor import KeyPress

ERASE_BELOW = "\x1b[J"  # of the cursor, where a line may tell how to stop
PASTE_ON, PASTE_OFF = "\x1b[?2004h", "\x1b[?2004l"  # bracketed paste: a pasted text arrives between two marks
IFLAG, LFLAG, CC = 0, 3, 6  # places in what tcgetattr returns
MAX_READS = 1000  # at a time, of a kilobyte each
PASTE_WAIT_S = 1.0  # for the rest of a pasted text: at a prompt, what the terminal answers would get into it
RESTORING = (signal.SIGTSTP, signal.SIGQUIT)  # they stop or end the process without an exception


class Keyboard:
    """A context in which the keys that are typed outside a prompt are kept for the next one, and not shown.

    `keys` is the input of that prompt, which takes escape sequences and pasted texts apart. Ctrl-C and Ctrl-Z work as
    ever. If `keys` is None or stdin is no terminal of ours, nothing is done and nothing kept.
    """

    def __init__(self, keys: Input | None = None) -> None:
        self._keys = keys
        self.text = ""  # what was typed so far
        self._modes: Modes | None = None

    def __enter__(self) -> Keyboard:
        if self._keys is not None and is_ours():
            self._modes = Modes(_hold, PASTE_ON, PASTE_OFF, ERASE_BELOW + PASTE_OFF)
            self._modes.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        if self._modes is not None:
            self._modes.__exit__()
            self._modes = None

    def poll(self) -> None:
        """Read the keys that wait: the terminal has room for a few thousand only."""
        for _ in range(MAX_READS):
            if not self._waits(0):
                break
            self._read()

    def take(self) -> str:
        """Return what was typed, without the line ends behind it, and forget it. Waits for the end of a paste."""
        while self._waits(PASTE_WAIT_S if self._is_pasting else 0):
            self._read()
        text, self.text = self.text, ""
        return text.rstrip("\n")

    def keep(self, presses: Iterable[KeyPress]) -> None:
        """Do to the text what `presses` say: insert, end the line, or erase a character, a word or the line."""
        from prompt_toolkit.keys import Keys

        for press in presses:
            if press.key == Keys.BracketedPaste:
                self.text += press.data.replace("\r\n", "\n").replace("\r", "\n")
            elif press.key in (Keys.ControlM, Keys.ControlJ):
                self.text += "\n"
            elif isinstance(press.key, Keys):
                self.text = self.text[: len(self.text) - _erased(press.key.value, self.text)]
            else:
                self.text += press.data

    def ended_prompt(self) -> None:
        """Go on with pasted texts as one, which a prompt ends."""
        if self._modes is not None:
            _tell(PASTE_ON)

    def _waits(self, seconds: float) -> bool:
        """Whether keys wait, or come within `seconds`."""
        is_open = self._modes is not None and self._keys is not None and not self._keys.closed
        return is_open and bool(select.select([0], [], [], seconds)[0])

    def _read(self) -> None:
        assert self._keys is not None
        self.keep(self._keys.read_keys())

    @property
    def _is_pasting(self) -> bool:
        return getattr(getattr(self._keys, "vt100_parser", None), "_in_bracketed_paste", False)

    @contextmanager
    def released(self) -> Iterator[None]:
        """Give the terminal to another program meanwhile."""
        if (modes := self._modes) is None:
            yield
            return
        self.__exit__()
        try:
            yield
        finally:
            modes.restore()  # it may have been killed in modes of its own
            self.__enter__()


class Modes:
    """A context with other modes of the terminal: those that `change` makes, and `begin` written; at its end `end`.

    Ctrl-Z and Ctrl-\\ restore the terminal, too, and write `stopped`; it is taken again when the process goes on.
    """

    def __init__(
        self,
        change: Callable[[list], None],  # type: ignore[type-arg]
        begin: str = "",
        end: str = "",
        stopped: str = "",
    ) -> None:
        self._change, self._begin, self._end, self._stopped = change, begin, end, stopped

    def __enter__(self) -> Modes:
        self._before = termios.tcgetattr(0)
        modes = termios.tcgetattr(0)
        self._change(modes)
        self._handlers = {n: signal.getsignal(n) for n in RESTORING if signal.getsignal(n) is not signal.SIG_IGN}
        for number in self._handlers:
            signal.signal(number, self._stop)
        self._set(modes, self._begin)
        return self

    def __exit__(self, *_: object) -> None:
        self._set(self._before, self._end)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def restore(self) -> None:
        """Give the terminal the modes that it had before."""
        self._set(self._before, "")

    def _stop(self, number: int, frame: FrameType | None) -> None:
        modes = termios.tcgetattr(0)
        self._set(self._before, self._stopped)
        signal.signal(number, self._handlers[signal.Signals(number)])
        signal.raise_signal(number)
        signal.signal(number, self._stop)
        if is_ours():
            self._set(modes, self._begin)

    @staticmethod
    def _set(modes: list, text: str) -> None:  # type: ignore[type-arg]  # a mixed list
        with suppress(OSError, termios.error):  # the terminal may be gone
            termios.tcsetattr(0, termios.TCSANOW, modes)
            _tell(text)


def unechoed() -> AbstractContextManager[object]:
    """Return a context in which a terminal does not show keys, and keeps them for the shell."""

    def change(modes: list) -> None:  # type: ignore[type-arg]
        modes[LFLAG] &= ~termios.ECHO

    return Modes(change) if is_ours() else nullcontext()


def is_ours() -> bool:
    """Whether stdin and stdout are a terminal, and this process is in its foreground and may change it."""
    with suppress(OSError):
        return sys.stdin.isatty() and sys.stdout.isatty() and os.tcgetpgrp(0) == os.getpgrp()
    return False


def _hold(modes: list) -> None:  # type: ignore[type-arg]
    """Show nothing, give each key at once as it is, and let a signal throw nothing away."""
    modes[LFLAG] = modes[LFLAG] & ~(termios.ECHO | termios.ICANON) | termios.NOFLSH
    modes[IFLAG] &= ~termios.ICRNL
    modes[CC][termios.VMIN], modes[CC][termios.VTIME] = 1, 0


def _erased(key: str, text: str) -> int:
    """Return how many characters at the end of `text` the key erases: one, a word, or the line."""
    line = text[text.rfind("\n") + 1 :]
    if key == "c-u":
        return len(line)
    if key == "c-w":
        return len(line) - len(line.rstrip().rpartition(" ")[0])
    return min(1, len(text)) if key == "c-h" else 0


def _tell(text: str) -> None:
    with suppress(OSError):
        sys.stdout.write(text)
        sys.stdout.flush()
