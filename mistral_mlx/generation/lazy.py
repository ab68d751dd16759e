"""The token loop of a GPU: it computes the next step while the last token is read and shown.

A token is chosen on the device and goes from there into the next step, which is scheduled before Python waits for the
token. So the device has work between two steps. `stream.decode` selects this loop where it can.
"""

from collections import deque
from collections.abc import Generator

import mlx.core as mx

from mistral_mlx import kernels
from mistral_mlx.sampling.sampler import Choice, Sampler

from .timeline import Timeline

CLEAR_EVERY = 256  # tokens after which MLX gives back the memory that it keeps for arrays of the same sizes


def runs_ahead(timeline: Timeline, choose: object) -> bool:
    """Whether `decode_ahead` can do what is asked for, and a GPU makes it worth it."""
    is_alone = timeline.model.is_whole and not timeline.shares_layers
    return is_alone and not kernels.on_cpu() and type(choose) is Sampler and choose.fits_device


def decode_ahead(timeline: Timeline, sampler: Sampler, max_tokens: int) -> Generator[tuple[int, str | None]]:
    """Yield up to `max_tokens` tokens that follow the timeline, each with the reason why no other follows, or None.

    While a token is yielded, the step after it runs ahead. When the next token is asked for, that step enters the
    timeline; otherwise it is taken back, and so is the random number that was drawn.
    """
    assert timeline.logits is not None, timeline.position
    chosen = deque([_choose(sampler, timeline.logits)])  # not yielded yet
    fed = None
    try:
        for n_decoded in range(1, max_tokens + 1):
            reason = "length" if n_decoded == max_tokens else "context" if timeline.room == 0 else None
            fed = chosen[0].token if reason is None and timeline.can_run_ahead() else None
            with timeline.emptied_by_errors():
                if fed is not None:
                    logits = timeline.run_ahead(fed)
                    chosen.append(_choose(sampler, logits))
                mx.eval(chosen[0].token)
            token = chosen[0].read()
            chosen.popleft()
            yield token, reason
            if reason:
                return
            if fed is not None and timeline.ahead is fed:
                timeline.enter(token, logits)
            else:  # this step wraps a ring, or somebody asked for the layers
                _give_back(sampler, chosen)
                timeline.step(token)
                chosen.append(_choose(sampler, timeline.logits))
            if n_decoded % CLEAR_EVERY == 0:
                mx.clear_cache()
    finally:
        _give_back(sampler, chosen)  # before what an interrupt may end, and whoever reads layers does again
        if timeline.ahead is fed:
            timeline.take_back()


def _choose(sampler: Sampler, logits: mx.array) -> Choice:
    choice = sampler.choose_on_device(logits)
    mx.async_eval(logits, choice.token)
    return choice


def _give_back(sampler: Sampler, chosen: deque[Choice]) -> None:
    while chosen:
        sampler.give_back(chosen.pop())
