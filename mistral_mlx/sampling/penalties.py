"""Changes logits before the filters: a bias for some tokens, penalties for recent tokens."""

from collections.abc import Mapping, Sequence

import numpy as np

from mistral_mlx.errors import OptionError

from .filters import Floats


def add_bias(row: Floats, bias: Mapping[int, float]) -> Floats:
    """Return logits ``[V]`` plus `bias`, which is {id: value}; -inf bans a token.

    Raises OptionError for an id outside the vocabulary.
    """
    row, ids = row.copy(), np.fromiter(bias, np.int64, len(bias))
    if outside := [int(i) for i in ids if not 0 <= i < len(row)]:
        raise OptionError(f"logit_bias names token {outside[0]}; the vocabulary has {len(row)}")
    row[ids] += np.fromiter(bias.values(), np.float32, len(bias))
    return row


def penalize(
    row: Floats, recent: Sequence[int], repetition: float = 1.0, frequency: float = 0.0, presence: float = 0.0
) -> Floats:
    """Return logits ``[V]`` in which the `recent` ids are less likely.

    The logit l of a token that occurs c times among them becomes

        (l / repetition if l > 0 else l * repetition) - c * frequency - presence

    (repetition: Keskar et al., CTRL, 2019, section 4.1, extended to negative logits as in HF transformers; the other
    two: OpenAI's API reference; the order is llama.cpp's).
    """
    ids, counts = np.unique(np.asarray(recent, np.int64), return_counts=True)
    row, seen = row.copy(), row[ids]
    seen = np.where(seen > 0, seen / repetition, seen * repetition)
    row[ids] = seen - counts * frequency - presence
    return row


def last(history: Sequence[int], n: int) -> Sequence[int]:
    """Return the last `n` ids, or all of them if `n` is -1."""
    return history if n < 0 else history[max(0, len(history) - n) :]
