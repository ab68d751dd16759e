"""Drafts by a small model with the same tokenizer: worth it where it is right more often than it costs."""

from collections.abc import Sequence

import numpy as np

from mistral_mlx.model.mistral import Mistral

from .drafts import Drafts
from .timeline import Timeline


class DraftModel:
    """A model that drafts for another one, and what it has read: the next answer goes on from there."""

    def __init__(self, model: Mistral, n_tokens: int | None = None) -> None:
        """Draft the first `n_tokens` of the vocabulary, by default all: a head may have rows without a token."""
        self._timeline, self._n_tokens = Timeline(model), n_tokens

    def __call__(self, ids: Sequence[int], most: int) -> Drafts:
        """Return what drafts after the text `ids`, `most` tokens at a time."""
        self._timeline = self._timeline.fork()  # another answer may still use the last one
        return ModelDrafts(self._timeline, ids, most, self._n_tokens)


class ModelDrafts(Drafts):
    """Drafts the likeliest tokens by a model."""

    def __init__(self, timeline: Timeline, ids: Sequence[int], most: int, n_tokens: int | None) -> None:
        super().__init__(ids, most)
        self._timeline, self._n_tokens = timeline, n_tokens

    def guess(self, most: int) -> list[int]:
        """Return what the model would write; nothing where its context is full."""
        timeline = self._timeline
        limit = timeline.model.args.context_limit
        if limit is not None and len(self.ids) + most > limit:
            return []
        if rest := self.ids[timeline.rewind(self.ids) :]:
            timeline.extend(rest)
        found = [self._likeliest()]
        while len(found) < most:
            timeline.step(found[-1])
            found.append(self._likeliest())
        return found

    def _likeliest(self) -> int:
        assert self._timeline.logits is not None
        return int(np.asarray(self._timeline.logits)[: self._n_tokens].argmax())
