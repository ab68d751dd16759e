"""The token loop: a prompt is read into a timeline, then tokens are chosen one by one.

`decode` and `stream` work on a timeline; `prefill`, `generate_step`, `stream_generate` and `generate` on a model and,
if one is given, a cache.
"""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field

import mlx.core as mx

from mistral_mlx.errors import OptionError
from mistral_mlx.kernels.memory import peak_memory, wired_memory
from mistral_mlx.model.cache import RollingBufferCache
from mistral_mlx.model.mistral import Mistral
from mistral_mlx.progress import Progress
from mistral_mlx.sampling.logprobs import TokenLogprobs, token_logprobs
from mistral_mlx.sampling.sampler import Sampler
from mistral_mlx.tokenizer.choose import Tokenizer

from .channels import AnswerChannels, Parts
from .lazy import decode_ahead, runs_ahead
from .timeline import READING, Timeline

DEFAULT_MAX_TOKENS = 2048

Choose = Callable[[mx.array, Sequence[int]], int]  # what a Sampler does


@dataclass(frozen=True)
class AnswerOptions:
    """How an answer is generated. Raises OptionError for an invalid value."""

    sampler: Choose | None = None  # None: a Sampler with its defaults
    max_tokens: int = DEFAULT_MAX_TOKENS
    stop: Sequence[str] = ()  # the text ends before the first of these strings
    n_logprobs: int | None = None  # how many likely tokens are returned with each token; None: no probabilities at all
    continues: bool = False  # the prompt is a text that goes on: the leading space that joins the two is kept
    splits: bool = True  # reasoning is told apart from the text; not for a text without a chat format
    calls: bool = False  # tools are offered: what follows [TOOL_CALLS] is no text
    fork: bool = False  # decode on a fork, so that the timeline ends with the prompt and can be decoded again
    prefill_step_size: int | None = None  # tokens; None: as suits the device
    progress: Progress | None = None  # of reading the prompt

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise OptionError(f"max_tokens is {self.max_tokens}; it must be at least 1")
        if "" in self.stop:
            raise OptionError("a stop string is empty; give at least one character")
        if self.n_logprobs is not None and self.n_logprobs < 0:
            raise OptionError(f"logprobs is {self.n_logprobs}; it must be 0 or a positive number of tokens")


@dataclass(frozen=True)
class GenerationResponse:
    """A piece of streamed text and the state after it; the last piece has a `finish_reason`."""

    text: str
    token: int
    finish_reason: str | None  # "stop", "length" or "context"; None while it goes on
    prompt_tokens: int  # all tokens before the answer, cached ones included
    cached_tokens: int  # those of them that the cache already held
    generation_tokens: int
    prompt_tps: float  # tokens per second, of those evaluated
    generation_tps: float
    ttft_s: float  # time to first token: from the call to the first choice
    peak_memory_gb: float  # 1e9 bytes
    logprobs: TokenLogprobs | None = None  # of `token`, if they were asked for
    reasoning: str = ""  # a piece of the reasoning, which is no part of the text
    reasoning_tokens: int = 0  # those of generation_tokens that are reasoning, its marks included


@dataclass(frozen=True)
class Decoded:
    """A chosen token, and why no other follows."""

    token: int
    logprobs: TokenLogprobs | None
    finish_reason: str | None  # "length" or "context"; None while it goes on


def decode(timeline: Timeline, choose: Choose, max_tokens: int, n_logprobs: int | None = None) -> Generator[Decoded]:
    """Yield up to `max_tokens` tokens that follow the timeline, stop ids included.

    The prompt must be evaluated. A token enters the timeline when the next one is asked for.
    """
    if n_logprobs is None and isinstance(choose, Sampler) and runs_ahead(timeline, choose):
        with closing(decode_ahead(timeline, choose, max_tokens)) as tokens:
            yield from (Decoded(token, None, reason) for token, reason in tokens)
        return
    for n_decoded in range(1, max_tokens + 1):
        assert timeline.logits is not None, timeline.position
        token = choose(timeline.logits, timeline.ids)
        logprobs = None if n_logprobs is None else token_logprobs(timeline.logits, token, n_logprobs)
        reason = "length" if n_decoded == max_tokens else "context" if timeline.room == 0 else None
        yield Decoded(token, logprobs, reason)
        if reason:
            return
        timeline.step(token)


def stream(
    timeline: Timeline, tokenizer: Tokenizer, ids: Sequence[int], options: AnswerOptions
) -> Iterator[GenerationResponse]:
    """Yield the text that follows `ids`, piece by piece, up to a stop id, a stop string, or a limit.

    `ids` are the whole text so far. What the timeline holds of them is not evaluated again. Stop ids are those of the
    config, the generation config and the tokenizer together; neither they nor the stop strings are part of the text,
    nor is a character that a limit cuts in two. What the model thinks is apart from the text.

    Raises OptionError for invalid ids, ContextError if they do not fit.
    """
    with wired_memory():
        yield from _stream(timeline, tokenizer, ids, options)


def _stream(
    timeline: Timeline, tokenizer: Tokenizer, ids: Sequence[int], options: AnswerOptions
) -> Iterator[GenerationResponse]:
    sampler = options.sampler or Sampler()
    if isinstance(sampler, Sampler):
        sampler = sampler.bound(tokenizer)
    meter = _read(timeline, ids, options)
    if options.fork:
        timeline = timeline.fork()
    channels = AnswerChannels(
        tokenizer,
        options.stop,
        before=ids,
        continues=options.continues,
        splits=options.splits,
        calls=options.calls,
    )
    stop_ids = timeline.model.args.eos_token_ids | tokenizer.eos_ids
    with closing(decode(timeline, sampler, options.max_tokens, options.n_logprobs)) as tokens:
        for decoded in tokens:
            meter.tick()
            is_stop_id = decoded.token in stop_ids
            piece = Parts() if is_stop_id else channels.add(decoded.token)
            reason = "stop" if is_stop_id or channels.stopped else decoded.finish_reason
            if reason:
                last = channels.finish(cut=reason != "stop")
                piece = Parts(piece.text + last.text, piece.reasoning + last.reasoning)
            yield meter.response(decoded, piece, reason, channels.reasoning_tokens)
            if reason:
                return


def prefill(
    model: Mistral,
    ids: Sequence[int],
    cache: list[RollingBufferCache],
    *,
    prefill_step_size: int | None = None,
    progress: Progress | None = None,
) -> mx.array:
    """Feed `ids` to the model in steps and return the float32 logits ``[V]`` after the last one.

    `progress` is called with strictly increasing counts of tokens, from 0 to all. It may raise an exception to stop
    between two steps; the cache then holds the steps done.

    Raises OptionError for invalid ids, ContextError if they do not fit.
    """
    timeline = Timeline(model, cache)
    timeline.extend([int(token) for token in ids], progress, step_size=prefill_step_size)
    assert timeline.logits is not None, len(ids)
    return timeline.logits


def generate_step(
    prompt: Sequence[int],
    model: Mistral,
    *,
    cache: list[RollingBufferCache] | None = None,
    history: Sequence[int] = (),
    sampler: Choose | None = None,
    max_tokens: int = DEFAULT_MAX_TOKENS,
    prefill_step_size: int | None = None,
) -> Iterator[int]:
    """Yield up to `max_tokens` ids that continue the ids `prompt`, stop ids included and not obeyed.

    The prompt continues what `cache` holds; penalties look back on `history` and the prompt. A yielded id enters the
    cache when the next one is asked for.

    Raises OptionError for an empty prompt or an invalid limit, ContextError if the prompt does not fit.
    """
    options = AnswerOptions(max_tokens=max_tokens)
    timeline = Timeline(model, cache, history)
    timeline.extend([int(token) for token in prompt], step_size=prefill_step_size)
    yield from (decoded.token for decoded in decode(timeline, sampler or Sampler(), options.max_tokens))


def stream_generate(
    model: Mistral,
    tokenizer: Tokenizer,
    prompt: str | Sequence[int],
    *,
    cache: list[RollingBufferCache] | None = None,
    sampler: Choose | None = None,
    max_tokens: int = DEFAULT_MAX_TOKENS,
    stop: Sequence[str] = (),
) -> Iterator[GenerationResponse]:
    """Yield the text that follows `prompt`, piece by piece; see `stream`.

    The prompt continues what `cache` holds. If it is a string, the leading space that joins it to the answer is kept.

    Raises OptionError for an empty prompt or an invalid limit, ContextError if the prompt does not fit.
    """
    timeline, is_text = Timeline(model, cache), isinstance(prompt, str)
    if isinstance(prompt, str):  # a text that goes on has its bos already
        ids = tokenizer.encode(prompt, bos=tokenizer.add_bos and timeline.position == 0)
    else:
        ids = [int(token) for token in prompt]
    options = AnswerOptions(sampler=sampler, max_tokens=max_tokens, stop=stop, continues=is_text, splits=not is_text)
    yield from stream(timeline, tokenizer, ids, options)


def generate(
    model: Mistral,
    tokenizer: Tokenizer,
    prompt: str | Sequence[int],
    *,
    sampler: Choose | None = None,
    max_tokens: int = DEFAULT_MAX_TOKENS,
    stop: Sequence[str] = (),
) -> str:
    """Return the whole text that follows `prompt`; see `stream`."""
    responses = stream_generate(model, tokenizer, prompt, sampler=sampler, max_tokens=max_tokens, stop=stop)
    return "".join(response.text for response in responses)


def _read(timeline: Timeline, ids: Sequence[int], options: AnswerOptions) -> "_Meter":
    """Make the timeline hold `ids`, and return a meter that began before they were evaluated."""
    rest = ids[timeline.rewind(ids) :]
    if not options.continues:  # a text that goes on has the snapshot of its beginning
        timeline.keep_snapshot(ids, len(ids) + options.max_tokens)
    meter = _Meter(prompt_tokens=timeline.position + len(rest), cached_tokens=timeline.position)
    if rest:
        timeline.extend(rest, options.progress, step_size=options.prefill_step_size)
    elif options.progress is not None:
        options.progress(READING, 0, 0)
    return meter


@dataclass
class _Meter:
    """Counts and times of one generation."""

    prompt_tokens: int
    cached_tokens: int
    generation_tokens: int = 0
    started: float = field(default_factory=time.perf_counter)
    first: float = 0.0  # when the first token was chosen
    last: float = 0.0

    def tick(self) -> None:
        self.last = time.perf_counter()
        self.first = self.first or self.last
        self.generation_tokens += 1

    def response(
        self, decoded: Decoded, piece: Parts, finish_reason: str | None, reasoning_tokens: int
    ) -> GenerationResponse:
        ttft_s = self.first - self.started
        return GenerationResponse(
            text=piece.text,
            token=decoded.token,
            finish_reason=finish_reason,
            prompt_tokens=self.prompt_tokens,
            cached_tokens=self.cached_tokens,
            generation_tokens=self.generation_tokens,
            prompt_tps=(self.prompt_tokens - self.cached_tokens) / ttft_s,
            # The first token came with the prompt.
            generation_tps=(self.generation_tokens - 1) / (self.last - self.first) if self.last > self.first else 0.0,
            ttft_s=ttft_s,
            peak_memory_gb=peak_memory() / 1e9,
            logprobs=decoded.logprobs,
            reasoning=piece.reasoning,
            reasoning_tokens=reasoning_tokens,
        )
