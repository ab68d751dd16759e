"""Shows one answer while it is generated, as Markdown or plain text, and stops it on Ctrl-C."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType
from typing import TYPE_CHECKING, Protocol

from mistral_mlx.cli.terminal.bar import amount
from mistral_mlx.cli.terminal.signals import Interrupted
from mistral_mlx.cli.terminal.size import columns
from mistral_mlx.cli.terminal.streams import write_raw, write_text

from .input import is_terminal

if TYPE_CHECKING:
    from mistral_mlx.cli.terminal.notes import Notes
    from mistral_mlx.cli.terminal.thoughts import Thoughts
    from mistral_mlx.generation.response import GenerationResponse
    from mistral_mlx.progress import Progress
    from mistral_mlx.session.session import Answer


UNIT = "tokens"


class Writer(Protocol):
    """Where an answer goes, piece by piece."""

    screen: Callable[[str], None] | None  # what writes to the terminal, if it has more than the answer

    def write(self, text: str) -> None: ...

    def finish(self) -> None:
        """End the answer."""

    def erase(self) -> None:
        """Remove what is shown besides the answer, which did not begin."""


class PlainWriter:
    """Writes answers as they are, inert on a terminal."""

    screen: Callable[[str], None] | None = None

    def write(self, text: str) -> None:
        write_text(text)

    def finish(self) -> None:
        write_text("\n")

    def erase(self) -> None:
        pass


class MarkdownWriter:
    """Writes an answer as Markdown, which goes on after the text `after`, and `status(columns)` in the row below it."""

    def __init__(self, status: Callable[[int], str], after: str) -> None:
        from mistral_mlx.cli.terminal.markdown import MarkdownStream
        from mistral_mlx.cli.terminal.status_row import StatusRow

        self._row = StatusRow(write_raw, columns, status)
        self.screen: Callable[[str], None] | None = self._row.write
        self._stream = MarkdownStream.resume(after, self._row.write, columns)

    def write(self, text: str) -> None:
        self._stream.write(text)

    def finish(self) -> None:
        self._stream.finish()
        self.erase()

    def erase(self) -> None:
        self._row.erase()


def writer(status: Callable[[int], str], *, plain: bool, after: str = "") -> Writer:
    """Return a writer for one answer, which goes on after the text `after`: Markdown on a terminal, unless `plain`."""
    return PlainWriter() if plain or not is_terminal() else MarkdownWriter(status, after)


def show_answer(
    start: Callable[[Progress], Answer],
    writer: Writer,
    thoughts: Thoughts,
    *,
    entered: float,
    on_start: Callable[[], None],
    on_progress: Callable[[str], None],
    on_piece: Callable[[GenerationResponse], None],
    notes: Notes,
) -> GenerationResponse | None:
    """Write the answer, and its reasoning to `thoughts`; return the last piece, or None if none came.

    Its ttft_s counts from `entered`.

    Ctrl-C ends it at once while the prompt is read, later after the current token. `on_start` is called before the
    prompt is read, `on_progress` while it is read, with how much of it is, and `on_piece` with each piece of the answer
    before it is written.
    """
    last: GenerationResponse | None = None
    ttft_s = 0.0
    bar = notes.progress(UNIT)

    def progress(what: str, done: int, total: int) -> None:
        if done == 0:
            on_start()
        on_progress(f"{what}: {amount(done, total, UNIT)}")
        if writer.screen is None:
            bar(what, done, total)
        else:
            writer.screen("")  # draws what tells of the progress

    with bar, _interrupts(at_once=lambda: last is None) as is_interrupted:
        stream = start(progress)
        try:
            for last in stream:
                ttft_s = ttft_s or time.perf_counter() - entered
                on_piece(last)
                thoughts.write(last.reasoning)
                if last.text:
                    thoughts.end()
                    writer.write(last.text)
                if is_interrupted():
                    break
        except Interrupted as interrupt:
            if interrupt.number != signal.SIGINT:
                raise
        finally:
            stream.close()  # the session keeps what was yielded
            thoughts.end()
            if last is not None:
                writer.finish()
            else:
                writer.erase()
    return replace(last, ttft_s=ttft_s) if last else None


@contextmanager
def _interrupts(*, at_once: Callable[[], bool]) -> Iterator[Callable[[], bool]]:
    """Yield a function that tells whether Ctrl-C was pressed; while `at_once()`, Ctrl-C raises Interrupted instead."""
    pressed: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        if at_once():
            raise Interrupted(number)
        pressed.append(number)

    before = signal.signal(signal.SIGINT, remember)
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, before)
