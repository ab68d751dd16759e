"""Standard output, exact in a pipe and inert on a terminal, and standard error, which may fail."""

import io
import os
import sys

import typer

from mistral_mlx.cli.statuses import Status

from .sanitize import inert


class OutputError(Exception):
    """Standard output cannot be written."""


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
        _write_nowhere(sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise typer.Exit(Status.PIPE_CLOSED) from None
        raise OutputError(f"standard output cannot be written: {error.strerror}") from error


def write_error(text: str) -> None:
    """Write `text` to stderr at once, as it is. That nobody can read it is no reason to fail."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except OSError:
        _write_nowhere(sys.stderr.fileno())


def silence_stdout() -> None:
    """Write nothing to standard output from now on: another process has the answer."""
    _write_nowhere(1)


def keep_stderr() -> None:
    """Keep standard error for ourselves: when a connection is lost, MLX's own code would write ten lines to it."""
    own = os.dup(2)
    _write_nowhere(2)
    sys.stderr = open(own, "w", encoding="utf-8", errors="replace", buffering=1)  # noqa: SIM115 - stays open


def prepare_streams() -> None:
    """Make output UTF-8 whatever the locale, and replace streams that were closed: writing to stdout fails.

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


def _write_nowhere(number: int) -> None:
    """Let what is written to this descriptor get lost."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), number)
