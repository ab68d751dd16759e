"""The token loop: tokens are chosen one by one, each from the logits after the last."""

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass

import mlx.core as mx

from mistral_mlx import kernels
from mistral_mlx.sampling.logprobs import TokenLogprobs, token_logprobs
from mistral_mlx.sampling.sampler import Sampler

from .drafts import MAX_DRAFT, Drafts
from .lazy import decode_ahead, runs_ahead
from .timeline import Timeline, read_ahead

Choose = Callable[[mx.array, Sequence[int]], int]  # what a Sampler does


@dataclass(frozen=True)
class Decoded:
    """A chosen token, and why no other follows."""

    token: int
    logprobs: TokenLogprobs | None
    finish_reason: str | None  # "length" or "context"; None while it goes on


def takes_drafts(timeline: Timeline) -> bool:
    """Whether drafts change no bit of the logits, so that a text with them is the text without."""
    return kernels.uses_native() and not timeline.shares_layers


def decode(
    timeline: Timeline,
    choose: Choose,
    max_tokens: int,
    n_logprobs: int | None = None,
    drafts: Drafts | None = None,
) -> Generator[Decoded]:
    """Yield up to `max_tokens` tokens that follow the timeline, stop ids included.

    The prompt must be evaluated. A token enters the timeline when the next one is asked for. `drafts`, which know the
    prompt, make it sooner and nothing else.
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
        if drafts is not None:
            drafts.add(token)
        yield Decoded(token, logprobs, reason)
        if reason:
            return
        if drafts is not None and timeline.read_logits(token) is None:
            read_ahead([(timeline, with_drafts(timeline, token, drafts, max_tokens - n_decoded))])
        timeline.step(token)


def with_drafts(timeline: Timeline, token: int, drafts: Drafts | None, n_left: int, most: int = MAX_DRAFT) -> list[int]:
    """Return a chosen token and up to `most` drafted ones after it, where `n_left` more are asked for."""
    room = timeline.room
    limit = max(0, n_left - 1 if room is None else min(n_left, room) - 1)
    return [token, *(drafts.propose(min(most, limit)) if drafts is not None else [])]
