"""Measures how full a model's context is, and drops turns when it overflows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mistral_mlx.model.args import ModelArgs

from .turns import Message, without_oldest_turn

RESERVED_SHARE = 4  # at most 1/4 of the context is kept free for an answer


@dataclass(frozen=True)
class ContextUse:
    """Tokens used and their limit. From a full window the oldest tokens drop out one by one."""

    used: int
    limit: int | None  # the model's context, or the smallest window if every layer has one
    is_window: bool

    @property
    def fraction(self) -> float:
        """The used share from 0 to 1; it stays 1 if more tokens are used."""
        return min(1.0, self.used / self.limit) if self.limit else 0.0


def context_use(args: ModelArgs, used: int) -> ContextUse:
    """Return how `used` tokens fill a model's context or window."""
    if args.context_limit is not None:
        return ContextUse(used, args.context_limit, is_window=False)
    return ContextUse(used, min(window for window in args.sliding_window if window is not None), is_window=True)


def without_overflow(
    messages: Sequence[Message], encode: Callable[[Sequence[Message]], list[int]], limit: int | None, n_answer: int
) -> tuple[list[Message], list[int], int]:
    """Return messages with room for `n_answer` more tokens, their ids, and the turns dropped.

    Whole turns are dropped, the oldest first. The last turn stays even if there is no room.
    """
    kept, n_dropped, ids = list(messages), 0, encode(messages)
    if limit is None:
        return kept, ids, 0
    room = limit - min(n_answer, limit // RESERVED_SHARE)
    while len(ids) > room and (fewer := without_oldest_turn(kept)) is not None:
        kept, n_dropped, ids = fewer, n_dropped + 1, encode(fewer)
    return kept, ids, n_dropped
