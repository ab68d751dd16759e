"""Follows one answer through a constraint: which ids may come next, and which must.

The mask of a position is computed when its id is chosen, so that drafts and batches need nothing of their own. What a
model thinks is free. So is the text before the control token that a constraint waits for; until then the constraint
costs nothing.
"""

from collections.abc import Callable, Sequence

import mlx.core as mx
import numpy as np
from llguidance import LLMatcher, LLTokenizer
from numpy.typing import NDArray

from mistral_mlx.errors import ConstraintError, OptionError, shown
from mistral_mlx.sampling.sampler import Sampler
from mistral_mlx.tokenizer.detokenizer import LeadingSpace

from .constraint import Constraint
from .vocabulary import Vocabulary

Choose = Callable[[mx.array, Sequence[int]], int]  # what a Sampler does
Mask = NDArray[np.bool_]

NO_TOKEN = "NoExtensionBias"  # how llguidance says that no id fits
NEVER = np.float32(-np.inf)


class Guide:
    """Knows what may follow; `take` tells it each id that was chosen.

    `begun` is the text that the answer has already, and it `continues` a text if a blank at its beginning is kept. An
    answer may begin with the id `think`; `is_thinking` says whether the next id is a thought. Raises OptionError if
    `begun` does not fit.
    """

    def __init__(
        self,
        constraint: Constraint,
        vocabulary: Vocabulary,
        *,
        begun: str = "",
        continues: bool = False,
        leading: LeadingSpace = LeadingSpace.KEPT,
        think: int | None = None,
        is_thinking: Callable[[], bool] = lambda: False,
    ) -> None:
        self._constraint, self._vocabulary = constraint, vocabulary
        self._leading = LeadingSpace.KEPT if continues or begun else leading
        self._think, self._is_thinking = think, is_thinking
        self._stop_ids = frozenset(vocabulary.stop_ids.tolist())
        self._is_first = True  # no id of the text was taken
        self._bits = np.zeros((vocabulary.n_rows + 31) // 32, np.int32)
        has_mark = constraint.begin is not None  # then neither the text nor a blank before it is bound
        self._matcher = None if constraint.waits else self._begin(vocabulary.within, "" if has_mark else begun)
        keeps = self._leading is LeadingSpace.KEPT or has_mark
        self._first = None if keeps else self._begin(vocabulary.first)  # until a blank at the beginning is decided on

    @property
    def finished(self) -> bool:
        """Whether the answer is whole, and nothing can follow."""
        return self._matcher is not None and not self._is_first and self._matcher.is_stopped()

    def over(self, choose: Choose) -> Choose:
        """Return a choice among the ids that are allowed, before all that `choose` does itself."""

        def chosen(logits: mx.array, history: Sequence[int]) -> int:
            token = self._greedy(choose, logits, history) if _is_greedy(choose) else None
            if token is None:
                token = self._bound(choose, logits, history)
            self.take(token)
            return token

        return chosen

    def _greedy(self, choose: Choose, logits: mx.array, history: Sequence[int]) -> int | None:
        """Return the likeliest id of all if it is allowed: then it is that of the allowed ones, and costs no mask."""
        matcher = self._deciding
        if matcher is None:
            return None
        token = choose(logits, history)
        if token in self._stop_ids:
            return token if matcher.is_accepting() else None
        if not self._vocabulary.bytes_of(token):
            return None
        return token if self._constraint.bounded(lambda: matcher.validate_tokens([token])) else None

    def _bound(self, choose: Choose, logits: mx.array, history: Sequence[int]) -> int:
        allowed = self.mask()
        if allowed is None:
            return choose(logits, history)
        if isinstance(choose, Sampler) and 2 * np.count_nonzero(allowed) < len(allowed):
            return choose(logits, history, np.flatnonzero(allowed))
        row = np.array(logits)
        row[np.flatnonzero(~allowed)] = NEVER
        return choose(mx.array(row), history)

    def mask(self) -> Mask | None:
        """Return which ids may come next, ``[n_rows]``; None for all.

        Raises OptionError if none may, or if that is too much to find out.
        """
        if self._is_thinking() or self._matcher is None:
            return None if self._matcher is None else self._all_but_stop_ids()
        allowed, vocabulary = self._allowed(self._first or self._matcher), self._vocabulary
        if self._first is not None and self._is_first:
            allowed[vocabulary.blank_first] = True
        if self._is_first and self._think is not None:
            allowed[self._think] = True
        if not vocabulary.spells_all and not allowed.any():
            raise self._unspellable()
        return allowed

    def take(self, token: int) -> None:
        """Note the id that was chosen. Raises OptionError if the constraint has grown too complex."""
        if token == self._constraint.begin and (self._matcher is None or self._is_thinking()):
            self._matcher = self._matcher or self._begin(self._vocabulary.within)  # it ends a thought, too
        elif self._matcher is None or self._is_thinking() or token in self._stop_ids:
            return
        elif self._is_first and token == self._think:
            self._think = None
            return
        if self._first is None:
            self._consume(self._matcher, [token])
        elif data := self._vocabulary.bytes_first(token):
            self._consume(self._matcher, self._vocabulary.within.tokenize_bytes(data))
            self._first = None
        elif self._leading is not LeadingSpace.UNTIL_TEXT:
            self._first = None
        self._is_first = False
        self._check()

    def forced(self) -> list[int]:
        """Return the ids that must come next, as the tokenizer writes them."""
        matcher = self._deciding
        return [] if matcher is None else self._constraint.bounded(matcher.compute_ff_tokens)

    def fitting(self, draft: Sequence[int]) -> list[int]:
        """Return the beginning of a draft that may come next."""
        matcher = self._deciding
        if matcher is None:
            return list(draft)
        return list(draft[: self._constraint.bounded(lambda: matcher.validate_tokens(list(draft)))])

    @property
    def _deciding(self) -> LLMatcher | None:
        """What says alone which ids may come next, if anything does."""
        return None if self._first is not None or self._is_thinking() else self._matcher

    def _begin(self, tokenizer: LLTokenizer, begun: str = "") -> LLMatcher:
        matcher = LLMatcher(tokenizer, self._constraint.grammar, log_level=0, limits=self._constraint.limits)
        if begun and not self._consume(matcher, tokenizer.tokenize_bytes(begun.encode("utf-8", "replace"))):
            name = self._constraint.name
            raise OptionError(f"the answer begins with {shown(begun)}, which does not fit {name}; begin it another way")
        return matcher

    def _consume(self, matcher: LLMatcher, ids: list[int]) -> bool:
        return self._constraint.bounded(lambda: matcher.consume_tokens(ids))

    def _allowed(self, matcher: LLMatcher) -> Mask:
        bits = self._bits
        self._constraint.bounded(lambda: matcher.unsafe_compute_mask_ptr(bits.ctypes.data, bits.nbytes))
        self._check()
        count = self._vocabulary.n_rows
        allowed = np.unpackbits(bits.view(np.uint8), count=count, bitorder="little").view(bool)
        if not self._vocabulary.spells_all and not matcher.is_accepting():
            allowed[self._vocabulary.stop_ids] = False  # which stood for a byte that cannot be spelled
        return allowed

    def _all_but_stop_ids(self) -> Mask:
        allowed = np.ones(self._vocabulary.n_rows, bool)
        allowed[self._vocabulary.stop_ids] = False
        return allowed

    def _check(self) -> None:
        for matcher in (self._matcher, self._first):
            if matcher is None or not matcher.is_error():
                continue
            fault = shown(matcher.get_error().partition("\n")[0], limit=160)
            if fault == NO_TOKEN:
                raise self._unspellable()
            raise ConstraintError(f"{self._constraint.name} cannot be followed here: {fault}; write a simpler one")

    def _unspellable(self) -> ConstraintError:
        return ConstraintError(f"{self._constraint.name} asks for a text that this model's vocabulary cannot spell")


def _is_greedy(choose: Choose) -> bool:
    return isinstance(choose, Sampler) and choose.options.temperature == 0
