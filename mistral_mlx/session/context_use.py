"""How full a model's context is, and which turns make room when it overflows; knows nothing of caches."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mistral_mlx.model.args import ModelArgs

from .turns import Message, without_oldest_turn

RESERVED_SHARE = 4  # at most a fourth of the context is kept free for an answer


@dataclass(frozen=True)
class ContextUse:
    """In tokens. A window never ends: what is beyond it is forgotten bit by bit."""

    used: int
    limit: int | None  # the model's context, or the smallest window if every layer has one
    is_window: bool

    @property
    def fraction(self) -> float:
        """From 0 to 1, where a longer conversation stays."""
        return min(1.0, self.used / self.limit) if self.limit else 0.0


def context_use(args: ModelArgs, used: int) -> ContextUse:
    """Return the use of a model's context by `used` tokens."""
    if args.context_limit is not None:
        return ContextUse(used, args.context_limit, is_window=False)
    return ContextUse(used, min(window for window in args.sliding_window if window is not None), is_window=True)


def without_overflow(
    messages: Sequence[Message], encode: Callable[[Sequence[Message]], list[int]], limit: int | None, n_answer: int
) -> tuple[list[Message], list[int], int]:
    """Return the messages that leave room for an answer of `n_answer` tokens, their ids, and how many turns went.

    Whole turns go, the oldest first; the last one stays even where there is no room.
    """
    kept, n_dropped, ids = list(messages), 0, encode(messages)
    if limit is None:
        return kept, ids, 0
    room = limit - min(n_answer, limit // RESERVED_SHARE)
    while len(ids) > room and (fewer := without_oldest_turn(kept)) is not None:
        kept, n_dropped, ids = fewer, n_dropped + 1, encode(fewer)
    return kept, ids, n_dropped
