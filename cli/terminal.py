"""What the program says, and where: model text on stdout, everything else on stderr; knows nothing of models.

Text for a terminal is made inert first: what a model writes, or a file is called, can never control the screen.
"""

import io
import os
import re
import sys
import time
from typing import TextIO

import typer

INTERRUPTED = 130  # what a shell reports for a program that SIGINT ended
PIPE_CLOSED = 141  # and SIGPIPE

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # C0 but tab and line feed, DEL, C1


def inert(text: str) -> str:
    """Return `text` with every control character but tab and line feed made visible."""
    return _CONTROL.sub(lambda match: _picture(ord(match.group())), text)


def write_text(text: str) -> None:
    """Write model text to stdout at once: inert on a terminal, exact in a pipe.

    Raises typer.Exit with status 141 if nobody reads any more.
    """
    try:
        sys.stdout.write(inert(text) if sys.stdout.isatty() else text)
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes stdout once more at exit, and would complain there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(PIPE_CLOSED) from None


def note(text: str) -> None:
    """Write a remark of one line to stderr."""
    print(f"mistral-mlx: {inert(text)}".replace("\n", " "), file=sys.stderr, flush=True)


def prepare_streams() -> None:
    """Make output UTF-8 whatever the locale, and replace streams that were closed before the program began.

    A file opened later must not get the number of a closed stream: MLX takes number 0 for a failure.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, open(number, "r" if number == 0 else "w", closefd=False))  # noqa: SIM115 - open as long as the program
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="replace")


class PrefillProgress:
    """Says how far a long prefill is, on one line of a terminal that is wiped at the end; nothing in a pipe.

    An instance is what `stream_generate` takes as `on_prefill`.
    """

    DELAY_S = 1.0

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._started = time.monotonic()
        self._n_shown = 0

    def __call__(self, done: int, total: int) -> None:
        if not self._stream.isatty():
            return
        if done < total and time.monotonic() - self._started > self.DELAY_S:
            self._show(f"reading the prompt: {done} of {total} tokens")
        elif done == total and self._n_shown:
            self._show("")

    def _show(self, text: str) -> None:
        self._stream.write("\r" + text.ljust(self._n_shown) + ("\r" if not text else ""))
        self._stream.flush()
        self._n_shown = len(text)


def _picture(code: int) -> str:
    """Return a visible stand-in: the picture of a C0 control or DEL, the number of a C1 control."""
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else f"<{code:02x}>"
