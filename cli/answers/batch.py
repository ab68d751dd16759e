"""``batch``: many prompts, some at a time; each result is a line that is written once and whole, in its turn.

A prompt is read on the timeline of the prompt before it, so that a common beginning is read only once, and answered on
a fork.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial

import typer

from mistral_mlx.cli.statuses import Status
from mistral_mlx.cli.terminal.bar import Bar
from mistral_mlx.cli.terminal.notes import Notes
from mistral_mlx.cli.terminal.signals import Interrupted
from mistral_mlx.errors import ContextError, ModelError, OptionError, counted
from mistral_mlx.generation.answer import AnswerOptions, AnswerStream
from mistral_mlx.generation.response import GenerationResponse
from mistral_mlx.generation.snapshots import MAX_SNAPSHOT_BYTES
from mistral_mlx.generation.stream import stream
from mistral_mlx.generation.timeline import Timeline
from mistral_mlx.generation.together import Together
from mistral_mlx.model.mistral import Mistral
from mistral_mlx.tokenizer.choose import Tokenizer

from .batch_files import Results, Task, read_tasks
from .batch_requests import Defaults, Request, request_of
from .said import CUTS, Said

__all__ = ["Defaults", "Results", "leave", "read_tasks", "run"]

SHOW_EVERY_S = 0.5


class Line:
    """A line of the input, and its answer."""

    def __init__(self, task: Task, defaults: Defaults) -> None:
        self.task, self._defaults = task, defaults
        self._request: Request | None = None

    def open(self, timeline: Timeline, tokenizer: Tokenizer) -> AnswerStream:
        """Begin the answer on a fork of `timeline`. Raises OptionError or ContextError if it cannot be asked."""
        self._request = request_of(self.task, self._defaults)
        return begin(self._request, timeline, tokenizer)

    def result(self, pieces: Iterable[GenerationResponse], tokenizer: Tokenizer) -> dict[str, object]:
        """Return the result of the line: the whole answer, or its error."""
        try:
            responses = list(pieces)
        except (OptionError, ContextError, ModelError) as error:
            return {"error": str(error)}
        assert self._request is not None
        last, sampler = responses[-1], self._request.sampler
        return {
            **answer_of(self._request, responses, tokenizer),
            "prompt_tokens": last.prompt_tokens,
            "cached_tokens": last.cached_tokens,
            "generation_tokens": last.generation_tokens,
            "reasoning_tokens": last.reasoning_tokens,
            "drafted_tokens": last.drafted_tokens,
            "accepted_tokens": last.accepted_tokens,
            "seed": sampler.seed,
            "temperature": sampler.options.temperature,
        }


def begin(request: Request, timeline: Timeline, tokenizer: Tokenizer) -> AnswerStream:
    """Begin an answer on a fork of `timeline`, which keeps the prompt for the next one."""
    prompt = request.prompt
    options = AnswerOptions(
        sampler=request.sampler,
        max_tokens=request.max_tokens,
        stop=request.stop,
        continues=prompt.continues(tokenizer) or bool(prompt.prefill),
        splits=not prompt.continues(tokenizer),
        calls=bool(prompt.tools),
        constraint=request.constraint or prompt.binding(tokenizer),
        banned=prompt.banned(tokenizer),
        begun=prompt.prefill,
        draft=request.draft,
        fork=True,
    )
    return stream(timeline, tokenizer, prompt.encode(tokenizer), options)


def answer_of(request: Request, responses: Sequence[GenerationResponse], tokenizer: Tokenizer) -> dict[str, object]:
    """Return a whole answer as JSON has it, its text with the prefill."""
    said = Said(request.constraint, request.prompt.prefill)
    for response in responses:
        said.add(response)
    said.text += said.end(request.prompt, tokenizer)
    reason = responses[-1].finish_reason
    reason = "tool_calls" if said.calls and reason == "stop" else reason
    said.judge(reason, request.stop, tokenizer)
    fault = {"error": f"{said.fault}; {CUTS[reason or 'length']}"} if said.fault else {}
    return {"text": said.text, **said.more(), "finish_reason": reason, **fault}


def run(
    results: Results, defaults: Defaults, model: Mistral, tokenizer: Tokenizer, notes: Notes, *, n_parallel: int = 1
) -> None:
    """Answer what remains, `n_parallel` lines at a time. What is wrong with a line becomes its result.

    Raises typer.Exit after an interrupt.
    """
    timeline = Timeline(model, max_snapshot_bytes=MAX_SNAPSHOT_BYTES)
    lines = [Line(task, defaults) for task in results.remaining]
    together = Together((partial(line.open, timeline, tokenizer) for line in lines), n_parallel)
    try:
        with notes.progress("lines") as bar, closing(together):
            speed = Speed(together)
            bar(speed.text(), results.n_done, results.n_tasks)
            for line, pieces in zip(lines, together, strict=True):
                result = line.result(_watched(pieces, bar, speed, results), tokenizer)
                bar.hide()  # the results may go to the same terminal
                results.write(line.task, result)
                bar(speed.text(), results.n_done, results.n_tasks)
    except Interrupted as signal:
        going_on = "; the same command goes on from there" if results.can_resume else ""
        notes.say(f"interrupted after {results.n_done:,} of {counted(results.n_tasks, 'line')}{going_on}")
        raise typer.Exit(signal.status) from None


class Speed:
    """Tokens per second of all answers together."""

    def __init__(self, together: Together) -> None:
        self._together, self._started = together, time.perf_counter()
        self.said = 0.0  # when it was asked for

    def text(self) -> str:
        """Return what is being done and how fast."""
        self.said = time.perf_counter()
        rate = self._together.n_tokens / max(self.said - self._started, 1e-9)
        return f"answering, {rate:.0f} tok/s" if self._together.n_tokens else "answering"


def _watched(
    pieces: Iterable[GenerationResponse], bar: Bar, speed: Speed, results: Results
) -> Iterator[GenerationResponse]:
    """Yield the pieces, and show the speed now and then."""
    for piece in pieces:
        if time.perf_counter() - speed.said > SHOW_EVERY_S:
            bar(speed.text(), results.n_done, results.n_tasks)
        yield piece


def leave(results: Results, notes: Notes) -> None:
    """Write how many lines were answered. Raises typer.Exit with the documented status if a line failed."""
    if results.n_failed:
        n_failed = f"{results.n_failed:,} of {counted(results.n_tasks, 'line')}"
        notes.error(f"{n_failed} could not be answered; the results say why")
        raise typer.Exit(Status.SOME_FAILED)
    if results.can_resume:
        notes.say(f"{counted(results.n_tasks, 'line')} answered, {results.n_kept:,} of them by an earlier run")
