"""Log probabilities of tokens, from the raw logits of the model before any sampling."""

from dataclasses import dataclass

import mlx.core as mx
import numpy as np


@dataclass(frozen=True)
class TokenLogprobs:
    """Natural log probabilities of the chosen token and of the most likely ones, in order."""

    logprob: float
    top: tuple[tuple[int, float], ...]  # (id, logprob)


def token_logprobs(logits: mx.array, token: int, n_top: int) -> TokenLogprobs:
    """Return the log probabilities of `token` and the `n_top` most likely, from logits ``[V]``."""
    row = np.asarray(logits).astype(np.float64)
    row -= row.max()
    row -= np.log(np.exp(row).sum())
    n_top = min(n_top, len(row))
    top = np.argpartition(-row, n_top - 1)[:n_top] if n_top else np.zeros(0, np.int64)
    order = top[np.lexsort((top, -row[top]))]  # of equal ones the lower id first, like argmax
    return TokenLogprobs(float(row[token]), tuple((int(i), float(row[i])) for i in order))
