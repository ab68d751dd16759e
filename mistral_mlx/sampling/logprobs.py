"""How likely the model itself found a token, from the raw logits, before any sampling; knows nothing of text."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from mistral_mlx.errors import OptionError


@dataclass(frozen=True)
class TokenLogprobs:
    """Natural logarithms of probabilities: of the token chosen, and of the likeliest, likeliest first."""

    logprob: float
    top: tuple[tuple[int, float], ...]  # (id, logprob)


class LogprobRecorder:
    """Chooses as `choose` does, and keeps in `last` how likely the model found the choice.

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
    """Return the log probability of `token`, and of the `n_top` likeliest, from logits ``[V]``, in float64."""
    row = np.asarray(logits).astype(np.float64)
    row -= row.max()
    row -= np.log(np.exp(row).sum())
    n_top = min(n_top, len(row))
    top = np.argpartition(-row, n_top - 1)[:n_top] if n_top else np.zeros(0, np.int64)
    order = top[np.lexsort((top, -row[top]))]  # of equals the lower id, as argmax has it
    return TokenLogprobs(float(row[token]), tuple((int(i), float(row[i])) for i in order))
