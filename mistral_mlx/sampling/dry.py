"""DRY, "don't repeat yourself": penalizes the token that would continue a repeated sequence.

If the last n tokens occurred earlier in the text, followed by token t, and n is the largest such number for t, then

    logit[t] -= multiplier * base ** (n - allowed_length)    where n >= allowed_length

(p-e-w, text-generation-webui #5677; llama.cpp's ``--dry-*``). A repetition does not extend back across a breaker,
which is a text such as a line feed, and a token that contains a whole breaker gets no penalty. With allowed_length 0
every token that follows another in the text counts, with n = 0.

An example, with letters for ids: after ``a b c d a b c`` the last three ids occurred before, followed by d. So d loses
multiplier * base ** (3 - allowed_length). If the second a contains a breaker, only the last two count.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from .filters import Floats

PieceOf = Callable[[int], str]  # the text of a single token id

MAX_PENALTY = 3.4e38  # the largest float32
LOG_MAX = math.log(MAX_PENALTY)


def dry_penalties(
    recent: Sequence[int],
    *,
    multiplier: float,
    base: float,
    allowed_length: int,
    breakers: Sequence[str],
    piece_of: PieceOf,
) -> dict[int, float]:
    """Return {token: penalty} of the tokens that would continue a repetition in `recent`."""
    longest = allowed_length + (int(LOG_MAX / math.log(base)) if base > 1 else 0)  # a longer one costs the same
    limit = min(longest, n_since_breaker(recent, breakers, piece_of, at_most=longest))
    # With 0 allowed, even a token that would repeat itself alone is penalized: all but the first have come after one.
    repeats = dict.fromkeys(recent[1:], 0) if allowed_length == 0 else {}
    repeats |= {token: n for token, n in repeat_lengths(recent, limit).items() if n >= max(1, allowed_length)}
    return {
        token: min(multiplier * base ** (n - allowed_length), MAX_PENALTY)
        for token, n in repeats.items()
        if not any(breaker in piece_of(token) for breaker in breakers)
    }


def subtract(row: Floats, penalties: dict[int, float]) -> Floats:
    """Return logits ``[V]`` minus the penalties of their ids."""
    if not penalties:
        return row
    row = row.copy()
    row[list(penalties)] -= np.fromiter(penalties.values(), np.float32, len(penalties))
    return row


def repeat_lengths(recent: Sequence[int], limit: int) -> dict[int, int]:
    """Return {token: n}: the last n ids (at most `limit`) occurred before, with `token` next."""
    ids = np.asarray(recent, np.int64)
    ends = np.arange(len(ids) - 1)  # last index of each earlier copy
    lengths: dict[int, int] = {}
    for n in range(limit):
        ends = ends[ends >= n]
        ends = ends[ids[ends - n] == ids[len(ids) - 1 - n]]
        if not len(ends):
            break
        lengths.update(dict.fromkeys(ids[ends + 1].tolist(), n + 1))
    return lengths


def n_since_breaker(recent: Sequence[int], breakers: Sequence[str], piece_of: PieceOf, *, at_most: int) -> int:
    """Return how many of the last ids begin after the last breaker (it may span tokens)."""
    if not breakers:
        return min(at_most, len(recent))
    reach = max(map(len, breakers)) - 1  # characters of the following text that may belong to a breaker
    after, lengths = "", list[int]()  # of the tokens after this one, nearest last
    for token in reversed(recent):
        piece = piece_of(token)
        text = piece + after
        if ends := [text.rfind(breaker) + len(breaker) for breaker in breakers if breaker in text]:
            return len(lengths) - _n_begun_before(max(ends) - len(piece), lengths)
        if len(lengths) >= at_most + reach:
            return at_most
        lengths.append(len(piece))
        after = text[:reach]
    return min(at_most, len(lengths))


def _n_begun_before(n_characters: int, lengths: Sequence[int]) -> int:
    """Return how many of the next tokens begin within the first `n_characters` of their text."""
    n = 0
    while n_characters > 0:
        n += 1
        n_characters -= lengths[-n]
    return n
