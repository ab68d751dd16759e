"""Log probabilities of the chosen token and of the most likely ones, from the raw logits."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from mistral_mlx.errors import OptionError


@dataclass(frozen=True)
class TokenLogprobs:
    """Natural logarithms of the probabilities of the chosen token and of the most likely ones, in order."""

    logprob: float
    top: tuple[tuple[int, float], ...]  # (id, logprob)


class LogprobRecorder:
    """Calls `choose`, and keeps the log probabilities of the choice in `last`.

    Raises OptionError if `n_top` is negative.
    """

    def __init__(self, choose: Callable[[mx.array, Sequence[int]], int], n_top: int) -> None:
        if n_top < 0:
            raise OptionError(f"logprobs is {n_top}; it must be 0 or a positive number of tokens")
        self.last: TokenLogprobs | None = None
        self._choose, self._n_top = choose, n_top

    def __call__(self, logits: mx.array, history: Sequence[int]) -> int:
        token = self._choose(logits, history)
        self.last = token_logprobs(logits, token, self._n_top)
        return token


def token_logprobs(logits: mx.array, token: int, n_top: int) -> TokenLogprobs:
    """Return the log probabilities of `token` and of the `n_top` most likely, from logits ``[V]``, in float64."""
    row = np.asarray(logits).astype(np.float64)
    row -= row.max()
    row -= np.log(np.exp(row).sum())
    n_top = min(n_top, len(row))
    top = np.argpartition(-row, n_top - 1)[:n_top] if n_top else np.zeros(0, np.int64)
    order = top[np.lexsort((top, -row[top]))]  # of equal ones the lower id first, like argmax
    return TokenLogprobs(float(row[token]), tuple((int(i), float(row[i])) for i in order))
