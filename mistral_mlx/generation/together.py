"""Several answers at once: a pass of the model reads the next token of each, and so the weights once for all of them.

Each answer keeps its own timeline, sampler and limits, and gets the tokens that it would get alone. When one ends, the
next is opened, and its prompt is read. Where a pass of several texts saves nothing, they only take turns.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field

from mistral_mlx import kernels

from .answer import AnswerStream
from .response import GenerationResponse
from .timeline import Timeline, read_ahead

Opener = Callable[[], AnswerStream]  # begins an answer; what it raises is raised by that answer

PASS_ROWS = 16  # that drafts may fill up: a row more costs as much as a draft saves
MAX_WAITING = 4  # times the answers of a pass: how many may be opened before they are asked for


@dataclass
class _Answer:
    """An answer, and those of its pieces that were not asked for yet."""

    stream: AnswerStream | None = None  # None: it has ended
    pieces: deque[GenerationResponse] = field(default_factory=deque)
    error: Exception | None = None

    def step(self) -> int:
        """Take the next piece, and return how many there were: 1 or 0. An error ends the answer."""
        try:
            if self.stream is not None:
                self.pieces.append(next(self.stream))
                return 1
        except StopIteration:
            self.stream = None
        except Exception as error:
            self.fail(error)
        return 0

    def awaited(self, n_drafts: int) -> tuple[Timeline, list[int]] | None:
        """Return what the next piece has the timeline read, if anything. An error ends the answer."""
        try:
            return None if self.stream is None else self.stream.awaited(n_drafts)
        except Exception as error:
            self.fail(error)
            return None

    def fail(self, error: Exception) -> None:
        """End the answer with an error."""
        self.stream, self.error = None, error


class Together:
    """Answers, up to `n_parallel` of them at once; iterating yields the pieces of each, in the order of `openers`."""

    def __init__(self, openers: Iterable[Opener], n_parallel: int) -> None:
        self.n_tokens = 0  # of all answers so far
        self._openers = iter(openers)
        self._n_parallel = n_parallel
        self._waiting: deque[_Answer] = deque()  # opened, and not asked for yet
        self._going: list[_Answer] = []

    def __iter__(self) -> Iterator[Generator[GenerationResponse]]:
        while self._waiting or self._open_next():
            yield self._pieces_of(self._waiting.popleft())

    def close(self) -> None:
        """End all answers here."""
        for answer in self._going:
            if answer.stream is not None:
                answer.stream.close()
        self._going = []

    def _pieces_of(self, answer: _Answer) -> Generator[GenerationResponse]:
        try:
            while answer.pieces or answer.stream is not None:
                if answer.pieces:
                    yield answer.pieces.popleft()
                else:
                    self._advance()
            if answer.error is not None:
                raise answer.error
        finally:
            answer.error = None  # its traceback holds this frame
            if answer.stream is not None:  # nobody wants the rest
                answer.stream.close()
                answer.stream = None

    def _advance(self) -> None:
        """Take the next piece of every answer that goes on."""
        self._going = [answer for answer in self._going if answer.stream is not None]
        while (
            len(self._going) < self._n_parallel
            and len(self._waiting) < MAX_WAITING * self._n_parallel
            and self._open_next()
        ):
            pass
        if kernels.uses_native():
            self._read_together()
        self.n_tokens += sum(answer.step() for answer in self._going)

    def _open_next(self) -> bool:
        """Begin another answer; False if there is none."""
        opener = next(self._openers, None)
        if opener is None:
            return False
        answer = _Answer()
        try:
            answer.stream = opener()
            self._going.append(answer)
        except Exception as error:
            answer.fail(error)
        self._waiting.append(answer)
        return True

    def _read_together(self) -> None:
        """Read what the next pieces await in one pass."""
        n_drafts = PASS_ROWS // len(self._going) - 1
        awaited = [(answer, part) for answer in self._going if (part := answer.awaited(n_drafts)) is not None]
        try:
            if awaited:
                read_ahead([part for _, part in awaited])
        except Exception as error:  # every one of the timelines is empty now
            for answer, _ in awaited:
                answer.fail(error)
