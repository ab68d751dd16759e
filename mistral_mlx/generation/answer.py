"""An answer as it is generated: what was asked for, and an iterator over its pieces."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mistral_mlx.errors import OptionError
from mistral_mlx.kernels.memory import wired_memory
from mistral_mlx.progress import Progress
from mistral_mlx.sampling.sampler import Sampler
from mistral_mlx.tokenizer.choose import Tokenizer

from .channels import AnswerChannels, Parts
from .decode import Choose, decode, takes_drafts, with_drafts
from .drafts import MAX_DRAFT, Drafter, Drafts, GuidedDrafts, NGramDrafts
from .response import GenerationResponse, Meter
from .timeline import READING, Timeline

if TYPE_CHECKING:
    from mistral_mlx.constraint.constraint import Constraint
    from mistral_mlx.constraint.guide import Guide

DEFAULT_MAX_TOKENS = 2048


@dataclass(frozen=True)
class AnswerOptions:
    """How an answer is generated. Raises OptionError for an invalid value."""

    sampler: Choose | None = None  # None: a Sampler with its defaults
    max_tokens: int = DEFAULT_MAX_TOKENS
    stop: Sequence[str] = ()  # the text ends before the first of these strings
    constraint: "Constraint | None" = None  # what the text must be
    banned: Sequence[int] = ()  # ids that are never chosen
    begun: str = ""  # the text that the constraint takes as the beginning of this answer
    n_logprobs: int | None = None  # how many likely tokens are returned with each token; None: no probabilities at all
    continues: bool = False  # the prompt is a text that goes on: the leading space that joins the two is kept
    splits: bool = True  # reasoning is told apart from the text; not for a text without a chat format
    calls: bool = False  # tools are offered: what follows [TOOL_CALLS] is no text
    fork: bool = False  # decode on a fork, so that the timeline ends with the prompt and can be decoded again
    draft: int = MAX_DRAFT  # tokens guessed at most, to be read together; 0: none
    drafter: Drafter | None = None  # what guesses; None: the text so far
    snapshot_at: int = 0  # of the prompt: a position to come back to, with a snapshot if it needs one
    prefill_step_size: int | None = None  # tokens; None: as suits the device
    progress: Progress | None = None  # of reading the prompt

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise OptionError(f"max_tokens is {self.max_tokens}; it must be at least 1")
        if "" in self.stop:
            raise OptionError("a stop string is empty; give at least one character")
        if self.n_logprobs is not None and self.n_logprobs < 0:
            raise OptionError(f"logprobs is {self.n_logprobs}; it must be 0 or a positive number of tokens")
        if not 0 <= self.draft <= MAX_DRAFT:
            raise OptionError(f"draft is {self.draft}; it must be 0 to {MAX_DRAFT}")


class AnswerStream(Iterator[GenerationResponse]):
    """The text that follows `ids`, piece by piece; see `stream`."""

    def __init__(self, timeline: Timeline, tokenizer: Tokenizer, ids: Sequence[int], options: AnswerOptions) -> None:
        self._state = _State(timeline, options)
        self._pieces = _pieces(self._state, tokenizer, ids)

    def __next__(self) -> GenerationResponse:
        return next(self._pieces)

    def close(self) -> None:
        """End the answer here."""
        self._pieces.close()

    def awaited(self, n_drafts: int) -> tuple[Timeline, list[int]] | None:
        """Return the timeline and the tokens that the next piece has it read: the last one, and drafts after it.

        None where nothing is to be read: before the first piece, after the last, and after what was read ahead.
        """
        state = self._state
        if state.token is None or state.timeline.read_logits(state.token) is not None:
            return None
        return state.timeline, with_drafts(state.timeline, state.token, state.drafts, state.n_left, n_drafts)


@dataclass
class _State:
    """How far an answer is: the stream and what generates its pieces share it, and neither holds the other."""

    timeline: Timeline
    options: AnswerOptions
    drafts: Drafts | None = None
    token: int | None = None  # the last one, if another may follow
    n_left: int = 0  # tokens that may follow


def _pieces(state: _State, tokenizer: Tokenizer, ids: Sequence[int]) -> Generator[GenerationResponse]:
    with wired_memory():
        yield from _decoded_pieces(state, tokenizer, ids)


def _decoded_pieces(state: _State, tokenizer: Tokenizer, ids: Sequence[int]) -> Generator[GenerationResponse]:
    options = state.options
    sampler = options.sampler or Sampler()
    if isinstance(sampler, Sampler):
        sampler = sampler.bound(tokenizer).without(options.banned)
    channels = AnswerChannels(
        tokenizer,
        options.stop,
        before=ids,
        continues=options.continues,
        splits=options.splits,
        calls=options.calls,
    )
    stop_ids = state.timeline.model.args.eos_token_ids | tokenizer.eos_ids
    guide = _guide(options, tokenizer, state.timeline.model.args.vocab_size, stop_ids, channels)
    choose = sampler if guide is None else guide.over(sampler)
    meter = _read(state.timeline, ids, options)
    if options.fork:
        state.timeline = state.timeline.fork()
    timeline = state.timeline
    if options.draft and takes_drafts(timeline):
        meter.drafts = state.drafts = _drafts(options, ids, guide)
    with closing(decode(timeline, choose, options.max_tokens, options.n_logprobs, state.drafts)) as tokens:
        for decoded in tokens:
            meter.tick()
            is_stop_id = decoded.token in stop_ids
            piece = Parts() if is_stop_id else channels.add(decoded.token)
            is_whole = is_stop_id or channels.stopped or (guide is not None and guide.finished)
            reason = "stop" if is_whole else decoded.finish_reason
            if reason:
                last = channels.finish(cut=reason != "stop")
                piece = Parts(piece.text + last.text, piece.reasoning + last.reasoning)
            state.token = None if reason else decoded.token
            state.n_left = options.max_tokens - meter.generation_tokens
            yield meter.response(decoded, piece, reason, channels.reasoning_tokens)
            if reason:
                return


def _read(timeline: Timeline, ids: Sequence[int], options: AnswerOptions) -> Meter:
    """Make the timeline hold `ids`, and return a meter that began before they were evaluated."""
    rest = ids[timeline.rewind(ids) :]
    if not options.continues:  # a text that goes on has the snapshot of its beginning
        timeline.keep_snapshot(ids, len(ids) + options.max_tokens)
    meter = Meter(prompt_tokens=timeline.position + len(rest), cached_tokens=timeline.position)
    if rest:
        place = options.snapshot_at
        place = 0 if timeline.keeps(place, len(ids) + options.max_tokens) else place
        timeline.extend(rest, options.progress, step_size=options.prefill_step_size, snapshot_at=place)
    elif options.progress is not None:
        options.progress(READING, 0, 0)
    return meter


def _guide(
    options: AnswerOptions, tokenizer: Tokenizer, n_rows: int, stop_ids: frozenset[int], channels: AnswerChannels
) -> "Guide | None":
    if options.constraint is None:
        return None
    from mistral_mlx.constraint.guide import Guide
    from mistral_mlx.constraint.vocabulary import vocabulary

    return Guide(
        options.constraint,
        vocabulary(tokenizer, n_rows, stop_ids),
        begun=options.begun,
        continues=options.continues,
        leading=tokenizer.leading,
        think=channels.think,
        is_thinking=lambda: channels.thinking and not channels.calling,
    )


def _drafts(options: AnswerOptions, ids: Sequence[int], guide: "Guide | None") -> Drafts:
    drafts = (options.drafter or NGramDrafts)(ids, options.draft)
    return drafts if guide is None else GuidedDrafts(drafts, guide, options.draft)
