"""From logits to the next token id, in NumPy; knows nothing of models.

The order is fixed: logit bias, penalties (repetition, then frequency and presence), DRY; with temperature 0 the
likeliest token then; else temperature, top-k, typical-p, top-p, min-p, XTC, and the draw. It is llama.cpp's, but for
the temperature, which stands in front of the filters as in Mistral's reference and in HF transformers. NumPy, because
MLX's sort and softmax take 11 ms for a vocabulary of 131,072 on a CPU, and this under one.
"""

import copy
import functools
import math
import secrets
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import mlx.core as mx
import numpy as np

from mistral_mlx.errors import CheckpointError, OptionError
from mistral_mlx.tokenizer.base import Tokenizer

from . import device
from .dry import PieceOf, dry_penalties, subtract
from .filters import FILTERS, LOGIT_FILTERS, TINY, Floats, Ids, exclude_top_choices
from .options import SamplingOptions
from .penalties import add_bias, last, penalize

NO_LOGITS = "the model computes NaN or infinite logits; its weights are damaged or overflow their dtype"


class Choice(NamedTuple):
    """A token that was chosen on the device and need not be known yet."""

    token: mx.array  # int32 []
    number: float  # drawn for it

    def read(self) -> int:
        """Wait for the token and return its id. Raises CheckpointError if the logits were not finite."""
        token = int(self.token)
        if token == device.NOT_FINITE:
            raise CheckpointError(NO_LOGITS)
        return token


class Sampler:
    """Chooses a token id from a row of logits.

    `options`, or the defaults, with the fields that are given by name: ``Sampler(temperature=0)``. Without a seed one
    is drawn, so that `seed` always names what repeats the choice. Raises OptionError if a value is out of range.
    """

    def __init__(self, options: SamplingOptions | None = None, **fields: object) -> None:
        self.options = replace(options or SamplingOptions(), **fields)  # type: ignore[arg-type]  # it checks them
        self.seed = secrets.randbits(32) if self.options.seed is None else self.options.seed
        self._filters = [(keep, getattr(self.options, name)) for name, keep in FILTERS if self.options.uses(name)]
        self._cuts = [(cut, getattr(self.options, name)) for name, cut in LOGIT_FILTERS if self.options.uses(name)]
        self._rng = np.random.default_rng(self.seed)
        self._returned: list[float] = []  # numbers that were drawn and not used
        self._piece_of: PieceOf | None = None

    def bound(self, tokenizer: Tokenizer) -> "Sampler":
        """Return a sampler that reads DRY's sequence breakers in the text of this tokenizer's ids.

        The two share the random generator: a draw of one is a draw of the other. `stream_generate` calls this.
        """
        if not self.options.dry_multiplier:
            return self

        def piece_of(token: int) -> str:
            stream = tokenizer.detokenizer(continues=True)
            return stream.add(token) + stream.flush()

        sampler = copy.copy(self)
        sampler._piece_of = functools.cache(piece_of)
        return sampler

    def without(self, ids: Sequence[int]) -> "Sampler":
        """Return a sampler that never chooses one of `ids`. The two share the random generator."""
        if not ids:
            return self
        sampler = copy.copy(self)
        biases = {**(self.options.logit_bias or {}), **dict.fromkeys(ids, -math.inf)}
        sampler.options = replace(self.options, logit_bias=biases)
        return sampler

    def __call__(self, logits: mx.array, history: Sequence[int], allowed: Ids | None = None) -> int:
        """Return the id chosen from float32 logits ``[V]`` after the ids in `history`, of the ids `allowed` if given.

        Raises CheckpointError if the logits are not finite: the weights are damaged or overflow; OptionError if the
        logit bias names an id that the vocabulary lacks, or bans all, or if DRY has sequence breakers and no tokenizer.
        """
        row: Floats = np.asarray(logits)
        best = int(row.argmax())
        if not math.isfinite(row[best]):
            raise CheckpointError(NO_LOGITS)
        changed = self._change(row, history)
        if allowed is not None:
            changed = changed[allowed]
        if changed is not row:
            best = int(changed.argmax())
            if not math.isfinite(changed[best]):
                raise OptionError("logit_bias bans every token; leave one")
        place = best if self.options.temperature == 0 else self._draw(changed, float(changed[best]))
        return place if allowed is None else int(allowed[place])

    @property
    def fits_device(self) -> bool:
        """Whether `choose_on_device` can do what the options ask for."""
        return device.is_cheap(self.options)

    def choose_on_device(self, logits: mx.array) -> Choice:
        """Return what a call would choose from float32 logits ``[V]``, without waiting for them; see `device.py`."""
        number = self._number() if self.options.temperature else 0.0
        return Choice(device.choose(logits, self.options, number), number)

    def give_back(self, choice: Choice) -> None:
        """Use the random number of an unused choice for the next one."""
        if self.options.temperature:
            self._returned.append(choice.number)

    def _number(self) -> float:
        return self._returned.pop() if self._returned else self._rng.random()

    def _change(self, row: Floats, history: Sequence[int]) -> Floats:
        """Return the logits after bias, penalties and DRY; `row` itself where there is nothing to do."""
        options = self.options
        if options.logit_bias:
            row = add_bias(row, options.logit_bias)
        penalties = options.repetition_penalty, options.frequency_penalty, options.presence_penalty
        if penalties != (1, 0, 0):
            row = penalize(row, last(history, options.repetition_context_size), *penalties)
        if options.dry_multiplier:
            if self._piece_of is None and options.dry_sequence_breakers:
                raise OptionError(
                    "this sampler has dry_sequence_breakers and no tokenizer to find them with; "
                    "take sampler.bound(tokenizer), or set dry_sequence_breakers to ()"
                )
            repeated = dry_penalties(
                last(history, options.dry_penalty_last_n),
                multiplier=options.dry_multiplier,
                base=options.dry_base,
                allowed_length=options.dry_allowed_length,
                breakers=tuple(options.dry_sequence_breakers),
                piece_of=self._piece_of or _no_text,
            )
            row = subtract(row, repeated)
        return row

    def _draw(self, row: Floats, highest: float) -> int:
        for cut, limit in self._cuts:
            row = cut(row, limit)
        with np.errstate(over="ignore"):  # to -inf, which is right
            # A temperature that is 0 in float32 would divide 0 by 0.
            probs = np.exp((row - np.float32(highest)) / np.float32(max(self.options.temperature, TINY)))
        ids: Ids = np.arange(len(probs))
        for keep, value in self._filters:
            ids, probs = keep(ids, probs, value)
        options = self.options
        if options.xtc_probability and self._number() < options.xtc_probability:
            ids, probs = exclude_top_choices(ids, probs, options.xtc_threshold)
        sums = np.cumsum(probs, dtype=np.float64)
        return int(ids[np.searchsorted(sums, self._number() * sums[-1], side="right")])


def _no_text(token: int) -> str:
    return ""
