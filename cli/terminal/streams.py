"""What the program says, and where: model text on stdout, everything else on stderr; knows nothing of models.

Text for a terminal is made inert first: what a model writes, or a file is called, can never control the screen.
"""

import io
import os
import signal
import sys
import threading
from types import FrameType
from typing import TextIO

import typer

from .sanitize import inert

SIGNALLED = 128  # plus the number of the signal that ended a program, as shells report it
PIPE_CLOSED = SIGNALLED + signal.SIGPIPE


def write_text(text: str) -> None:
    """Write model text to stdout at once: inert on a terminal, exact in a pipe. Raises as `write_raw` does."""
    write_raw(inert(text) if sys.stdout.isatty() else text)


def write_raw(text: str) -> None:
    """Write `text` to stdout at once, as it is.

    Raises typer.Exit with status 141 if nobody reads any more, OutputError if writing fails otherwise.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        # Python flushes stdout once more at exit, and would complain there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise typer.Exit(PIPE_CLOSED) from None
        raise OutputError(f"standard output cannot be written: {error.strerror}") from error


def note(text: str) -> None:
    """Write a remark of one line to stderr; where nobody can read it, that is no reason to fail."""
    try:
        print(f"mistral-mlx: {inert(text)}".replace("\n", " "), file=sys.stderr, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


class OutputError(Exception):
    """Standard output cannot be written."""


class Interrupted(BaseException):
    """Raised in the main thread by a signal that ends the program; what was begun is undone on the way out."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number
        self.status = SIGNALLED + number  # what a shell reports


def raise_on_signals() -> None:
    """Make Ctrl-C, a closed terminal and a polite kill raise Interrupted."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise Interrupted(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup means it
            signal.signal(number, interrupt)


def prepare_streams() -> None:
    """Make output UTF-8 whatever the locale, and stand in for streams that were closed: writing to stdout fails.

    A file opened later must not get the number of a closed stream: MLX takes number 0 for a failure.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_WRONLY if name == "stderr" else os.O_RDONLY)
            setattr(sys, name, open(number, "r" if number == 0 else "w", closefd=False))  # noqa: SIM115 - stays open
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="replace")


class PrefillProgress:
    """Shows the progress of a long prefill in one line of a terminal, and wipes the line; silent in a pipe.

    An instance is the `progress` of AnswerOptions; leaving its context wipes the line, too.
    """

    DELAY_S = 1.0

    def __init__(self, stream: TextIO, *, quiet: bool = False) -> None:
        self._stream = stream
        self._silent = quiet or not stream.isatty()
        self._text = ""
        self._n_shown = 0
        self._done = False
        self._lock = threading.RLock()  # Ctrl-C may end a prefill while this thread writes
        self._timer = threading.Timer(self.DELAY_S, self._show)

    def __enter__(self) -> "PrefillProgress":
        return self

    def __exit__(self, *_: object) -> None:
        self._finish()

    def __call__(self, what: str, done: int, total: int) -> None:
        if self._silent:
            return
        self._text = f"{what}: {done} of {total} tokens"
        if done == total:
            self._finish()
        elif done == 0:
            self._timer.daemon = True
            self._timer.start()
        elif self._n_shown:
            self._show()

    def _finish(self) -> None:
        self._timer.cancel()  # too late if it waits for the lock: `_done` holds it back
        with self._lock:
            self._done = True
            if self._n_shown:
                self._write("\r" + " " * self._n_shown + "\r")
                self._n_shown = 0

    def _show(self) -> None:
        with self._lock:
            if not self._done:
                self._n_shown = len(self._text)
                self._write("\r" + self._text)

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
