"""Tokens that a model reads before they are chosen, so that its weights are read once for several of them.

Drafts, which may be wrong, and the next tokens of several texts are read in one pass. `Timeline.step` then finds the
logits after a token that was read ahead. What was read in vain is taken back by a counter: a ring has slots to spare.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx


@dataclass
class ReadAhead:
    """Tokens that the layers of a timeline hold from `position` on, and the logits ``[n, V]`` after each, if known."""

    position: int
    tokens: Sequence[int]
    logits: mx.array | None = None

    def logits_after(self, token: int, position: int) -> mx.array | None:
        """Return the logits ``[V]`` after `token` at `position`; None if it is not what was read there."""
        i = position - self.position
        if self.logits is None or not 0 <= i < len(self.tokens) or self.tokens[i] != token:
            return None
        return self.logits[i]
