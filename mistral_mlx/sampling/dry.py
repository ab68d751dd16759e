"""DRY, "don't repeat yourself": makes the token that would continue a repeated sequence less likely.

If the last n tokens stood in the text before, followed by token t, and n is the largest such number for t, then

    logit[t] -= multiplier * base ** (n - allowed_length)    where n >= allowed_length

(p-e-w, text-generation-webui #5677; llama.cpp's ``--dry-*``). A sequence does not reach back over a breaker, a text
like a line feed that ends what may be called a repetition, and a token that holds a whole breaker gets no penalty.

By hand, with ids for letters: after ``a b c d a b c`` the last three were there before, followed by d, which loses
multiplier * base ** (3 - allowed_length). With a breaker in the second a, it is the last two.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from .filters import Floats

PieceOf = Callable[[int], str]  # the text of a token id on its own

MAX_PENALTY = 3.4e38  # float32 ends there
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
    """Return what each token that would continue a repetition in the `recent` ids is to lose."""
    longest = allowed_length + (int(LOG_MAX / math.log(base)) if base > 1 else 0)  # longer ones cost no more
    limit = min(longest, n_since_breaker(recent, breakers, piece_of, at_most=longest))
    repeats = {token: n for token, n in repeat_lengths(recent, limit).items() if n >= max(1, allowed_length)}
    return {
        token: min(multiplier * base ** (n - allowed_length), MAX_PENALTY)
        for token, n in repeats.items()
        if not any(breaker in piece_of(token) for breaker in breakers)
    }


def subtract(row: Floats, penalties: dict[int, float]) -> Floats:
    """Return logits ``[V]`` less the penalties of their ids."""
    if not penalties:
        return row
    row = row.copy()
    row[list(penalties)] -= np.fromiter(penalties.values(), np.float32, len(penalties))
    return row


def repeat_lengths(recent: Sequence[int], limit: int) -> dict[int, int]:
    """Return for each token that has followed them before how many of the last ids, up to `limit`, it has followed."""
    ids = np.asarray(recent, np.int64)
    ends = np.arange(len(ids) - 1)  # of the earlier copies
    lengths: dict[int, int] = {}
    for n in range(limit):
        ends = ends[ends >= n]
        ends = ends[ids[ends - n] == ids[len(ids) - 1 - n]]
        if not len(ends):
            break
        lengths.update(dict.fromkeys(ids[ends + 1].tolist(), n + 1))
    return lengths


def n_since_breaker(recent: Sequence[int], breakers: Sequence[str], piece_of: PieceOf, *, at_most: int) -> int:
    """Return how many of the last ids stand wholly behind the last breaker; it may lie across several tokens."""
    if not breakers:
        return min(at_most, len(recent))
    reach = max(map(len, breakers)) - 1  # characters of the text behind that may belong to a breaker
    behind, lengths = "", list[int]()  # of the tokens behind, nearest last
    for token in reversed(recent):
        piece = piece_of(token)
        text = piece + behind
        if ends := [text.rfind(breaker) + len(breaker) for breaker in breakers if breaker in text]:
            return len(lengths) - _n_begun_before(max(ends) - len(piece), lengths)
        if len(lengths) >= at_most + reach:
            return at_most
        lengths.append(len(piece))
        behind = text[:reach]
    return min(at_most, len(lengths))


def _n_begun_before(n_characters: int, lengths: Sequence[int]) -> int:
    """Return how many of the tokens behind begin within the first `n_characters` of their text."""
    n = 0
    while n_characters > 0:
        n += 1
        n_characters -= lengths[-n]
    return n
