"""``complete``: one prompt in, one answer or several out on stdout, for pipes and scripts."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial

import typer

from mistral_mlx.cli.models.opening import parallel_for_memory
from mistral_mlx.cli.statuses import Status
from mistral_mlx.cli.terminal.bar import Bar
from mistral_mlx.cli.terminal.keyboard import unechoed
from mistral_mlx.cli.terminal.notes import Notes
from mistral_mlx.cli.terminal.signals import Interrupted
from mistral_mlx.errors import counted
from mistral_mlx.generation.answer import AnswerOptions
from mistral_mlx.generation.limits import check_prompt
from mistral_mlx.generation.response import GenerationResponse
from mistral_mlx.generation.stream import stream
from mistral_mlx.generation.timeline import Timeline
from mistral_mlx.generation.together import Together
from mistral_mlx.model.mistral import Mistral
from mistral_mlx.tokenizer.choose import Tokenizer

from .beginning import Beginning
from .code_block import FirstCodeBlock
from .job import Job
from .output import Answer, Output, spelled_logprobs
from .remarks import statistics, untrained_position
from .said import CUTS, Said

ENDINGS = {
    "length": "stopped at the limit of {tokens} (--max-tokens); the answer may go on",
    "context": "stopped because the model's context is full, after {tokens}",
    "interrupt": "interrupted after {tokens}",
}


def run(job: Job, model: Mistral, tokenizer: Tokenizer, notes: Notes) -> None:
    """Write the answers to stdout, and remarks to stderr.

    Raises typer.Exit with the documented status after an interrupt, when nobody reads the output, and for an answer
    that is not what was asked for.
    """
    output, answers = job.output(quiet=notes.quiet), list[Answer]()
    interrupted: Interrupted | None = None
    ids = job.prompt.encode(tokenizer)
    check_prompt(ids, model.args)
    other = job.other
    beginning = Beginning(Timeline(model), ids, job.kept, lambda: other.encode(tokenizer) if other else ())
    with (
        unechoed(),
        _keeping(None if job.prompt.continues(tokenizer) else job.keep, answers),
        notes.progress("tokens") as bar,
        closing(_streams(job, beginning, tokenizer, notes, bar)) as streams,
    ):
        for stream in streams:
            answers.append(_new_answer(job, len(answers)))
            try:
                _follow(job, stream, tokenizer, answers[-1], output)
            except Interrupted as signal:
                interrupted, answers[-1].finish_reason = signal, "interrupt"
                bar.hide()
            _end(job, answers[-1], output, tokenizer)
            _remark(job, answers[-1], model.args.max_position_embeddings, beginning.n_taken, tokenizer, notes)
            if interrupted:
                break
    output.close()
    if interrupted:
        raise typer.Exit(interrupted.status)
    beginning.keep(job.name)
    _judge(job, answers, notes)


@contextmanager
def _keeping(keep: Callable[[str], None] | None, answers: list[Answer]) -> Iterator[None]:
    """Keep the answer as far as it came at the end, also if nobody reads it any more."""
    try:
        yield
    finally:
        if keep is not None and answers and answers[-1].text.strip():
            keep(answers[-1].text)


def _streams(job: Job, beginning: Beginning, tokenizer: Tokenizer, notes: Notes, bar: Bar) -> Together:
    continues = job.prompt.continues(tokenizer)
    if continues and not (job.prompt.raw or job.prompt.suffix is not None):
        notes.say("this model has no chat format: the text is continued as it is (--raw says so on purpose)")
    options = AnswerOptions(
        max_tokens=job.max_tokens,
        stop=job.stop,
        progress=bar,
        continues=continues or bool(job.prompt.prefill),
        splits=not continues,
        calls=bool(job.prompt.tools),
        constraint=job.constraint or job.prompt.binding(tokenizer),
        banned=job.prompt.banned(tokenizer),
        begun=job.prompt.prefill,
        n_logprobs=job.n_logprobs,
        fork=len(job.samplers) > 1,
        draft=job.draft,
        drafter=job.drafter,
        snapshot_at=beginning.n_kept,
    )
    timeline, ids = beginning.timeline, beginning.ids
    each = [replace(options, sampler=sampler) for sampler in job.samplers]
    n = parallel_for_memory(job.n_parallel, timeline.model, len(ids) + job.max_tokens)
    return Together((partial(stream, timeline, tokenizer, ids, one) for one in each), n)


def _new_answer(job: Job, index: int) -> Answer:
    return Answer(
        sampler=job.samplers[index],
        index=index,
        said=Said(job.constraint),
        logprobs=None if job.n_logprobs is None else [],
        block=FirstCodeBlock() if job.extract else None,
    )


def _follow(
    job: Job, stream: Iterator[GenerationResponse], tokenizer: Tokenizer, answer: Answer, output: Output
) -> None:
    """Take a stream into `answer`, which an interrupt leaves as far as it came; a code block's end ends it, too."""
    for response in stream:
        is_first, answer.last = answer.last is None, response
        if is_first:
            answer.start_ttft_s = time.perf_counter() - job.started
            _begin(job, answer, output)
        answer.finish_reason = response.finish_reason or "interrupt"
        if answer.logprobs is not None and response.logprobs is not None:
            answer.logprobs.append(spelled_logprobs(response.logprobs, response.token, tokenizer))
        output.piece(answer, answer.take(response), response)
        if answer.block is not None and answer.block.closed:
            answer.finish_reason = "stop"
            return


def _begin(job: Job, answer: Answer, output: Output) -> None:
    output.begin(answer)
    if job.prompt.prefill:
        output.piece(answer, answer.add(job.prompt.prefill), None)


def _end(job: Job, answer: Answer, output: Output, tokenizer: Tokenizer) -> None:
    if answer.last is None:  # interrupted before the first token
        _begin(job, answer, output)
    if unread := answer.said.end(job.prompt, tokenizer):
        output.piece(answer, answer.add(unread), replace(answer.last, text=unread) if answer.last else None)
    elif answer.said.calls and answer.finish_reason == "stop":
        answer.finish_reason = "tool_calls"
    answer.said.judge(answer.finish_reason, job.stop, tokenizer)
    output.end(answer)


def _remark(job: Job, answer: Answer, n_trained: int, n_from_disk: int, tokenizer: Tokenizer, notes: Notes) -> None:
    """Write why the answer ended early, that it is past the trained positions, and the statistics."""
    last = answer.last
    n_answered, n_tokens = (last.generation_tokens, last.prompt_tokens + last.generation_tokens) if last else (0, 0)
    if answer.finish_reason in ENDINGS:
        notes.say(ENDINGS[answer.finish_reason].format(tokens=counted(n_answered, "token")))
    if n_tokens > n_trained:
        notes.say(untrained_position(n_tokens, n_trained))
    if job.stats and last:
        figures = statistics(last, answer.sampler.seed, answer.finish_reason, n_from_disk)
        if job.constraint is not None and job.constraint.schema is not None:
            figures += f", the schema is {'' if job.tells_schema(tokenizer) else 'not '}in the prompt"
        notes.always(f"{figures}, {answer.start_ttft_s:.2f} s after the program's start")


def _judge(job: Job, answers: list[Answer], notes: Notes) -> None:
    """Raise typer.Exit if an answer lacks its code block, or has a length that was to be a failure."""
    if any(answer.block is not None and not answer.block.found for answer in answers):
        notes.error("the answer has no code block (--extract); ask for one, or begin it with --prefill")
        raise typer.Exit(Status.NO_CODE_BLOCK)
    if faults := [answer for answer in answers if answer.said.fault]:
        notes.error(f"{faults[0].said.fault}; {CUTS[faults[0].finish_reason]}")
        raise typer.Exit(Status.CUT_SHORT)
    if job.fail_on_length and any(answer.finish_reason in ("length", "context") for answer in answers):
        notes.error("the answer was cut short (--fail-on-length); give it more --max-tokens")
        raise typer.Exit(Status.CUT_SHORT)
