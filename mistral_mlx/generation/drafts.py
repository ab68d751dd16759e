"""Drafts: tokens that may come next, guessed from what the text has said before.

An answer that quotes, edits or repeats goes on as the text went on at an earlier place with the same last tokens
(prompt lookup, Saxena, 2023). A pass of the model reads a few drafted tokens beside the one that was chosen
(speculative decoding, Leviathan et al., 2023), and the ordinary sampler then chooses at each position. So a draft
decides how soon a token is known, and never which one.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mistral_mlx.constraint.guide import Guide

MAX_DRAFT = 15  # tokens: with the one before them a pass of 16 rows
SHORT_DRAFT = 3  # a pass of 4 rows costs hardly more than one of a single row, one of 5 or more the double
N_GRAMS = (24, 12, 6, 3)  # tokens that are the same at the earlier place; more tell repeating parts of a text apart
TRUSTED = 6  # drafted tokens in a row that were right: then drafts are long
MAX_MISSES = 3  # drafts in a row of which no token was right: then there is none for PAUSE tokens
PAUSE = 32


class Drafts(ABC):
    """What guesses the next tokens of one text, as many as its last guesses are worth."""

    def __init__(self, ids: Sequence[int], most: int = MAX_DRAFT) -> None:
        """Begin after the text `ids`; no draft is longer than `most` tokens."""
        self.n_drafted = 0  # tokens proposed so far
        self.n_accepted = 0  # those of them that were chosen
        self.ids = list(ids)
        self._most = most
        self._expected: deque[int] = deque()  # the rest of the last draft
        self._hits = 0  # tokens of the last draft that were right
        self._right = 0  # tokens that were right since the last wrong one
        self._misses = self._paused = 0

    @abstractmethod
    def guess(self, most: int) -> list[int]:
        """Return up to `most` tokens, 1 or more, that may follow `ids`."""

    def add(self, token: int) -> None:
        """Note the next token of the text."""
        self.ids.append(token)
        self._paused = max(0, self._paused - 1)
        if not self._expected:
            return
        if token == self._expected.popleft():
            self.n_accepted += 1
            self._hits, self._right = self._hits + 1, self._right + 1
        else:
            self._reject()

    def propose(self, limit: int) -> list[int]:
        """Return up to `limit` tokens that may come next."""
        most = min(limit, self._most if self._right >= TRUSTED else min(self._most, SHORT_DRAFT))
        found = self.guess(most) if most > 0 and not self._paused else []
        self._expected, self._hits = deque(found), 0
        self.n_drafted += len(found)
        return found

    def _reject(self) -> None:
        self._expected.clear()
        self._right = 0
        self._misses = 0 if self._hits else self._misses + 1
        if self._misses == MAX_MISSES:
            self._misses, self._paused = 0, PAUSE


Drafter = Callable[[Sequence[int], int], Drafts]  # from the text so far, and the most tokens of a draft


class NGramDrafts(Drafts):
    """Drafts what followed the last tokens at their latest place before, as many of them as were there before."""

    def __init__(self, ids: Sequence[int], most: int = MAX_DRAFT) -> None:
        super().__init__(ids, most)
        self._ends: dict[tuple[int, ...], int] = {}  # of the latest place of each n-gram
        self._place: int | None = None  # what followed the longest one at its place before
        for end in range(min(N_GRAMS), len(self.ids) + 1):
            self._note(end)

    def add(self, token: int) -> None:
        """Note the next token of the text."""
        super().add(token)
        self._note(len(self.ids))

    def guess(self, most: int) -> list[int]:
        """Return what followed there, if there was such a place."""
        return [] if self._place is None else self.ids[self._place : self._place + most]

    def _note(self, end: int) -> None:
        self._place = None
        for n in N_GRAMS:
            if n <= end:
                last = tuple(self.ids[end - n : end])
                self._place = self._place or self._ends.get(last)
                self._ends[last] = end


class GuidedDrafts(Drafts):
    """Drafts what a constraint forces, or else what others draft as far as it may follow."""

    def __init__(self, drafts: Drafts, guide: "Guide", most: int = MAX_DRAFT) -> None:
        super().__init__(drafts.ids, most)
        self._drafts, self._guide = drafts, guide

    def add(self, token: int) -> None:
        """Note the next token of the text."""
        super().add(token)
        self._drafts.add(token)

    def guess(self, most: int) -> list[int]:
        """Return the drafted tokens that may follow, or the forced ones where these differ or are more."""
        forced = self._guide.forced()[:most]
        drafted = self._guide.fitting(self._drafts.guess(most))
        return drafted if drafted[: len(forced)] == forced else forced
