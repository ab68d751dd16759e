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
from collections.abc import Mapping, Sequence

import mlx.core as mx
import numpy as np

from mistral_mlx.errors import CheckpointError, OptionError
from mistral_mlx.tokenizer.base import Tokenizer

from .dry import PieceOf, dry_penalties, subtract
from .filters import TINY, Floats, Ids, exclude_top_choices, keep_min_p, keep_top_k, keep_top_p, keep_typical_p
from .penalties import add_bias, last, penalize

REPETITION_CONTEXT_SIZE = 64  # tokens looked back on, as llama.cpp and ollama do
DRY_SEQUENCE_BREAKERS = ("\n", ":", '"', "*")  # llama.cpp's
MAX_SEED = 2**63 - 1


class Sampler:
    """Chooses a token id from a row of logits; `temperature` 0 is the argmax.

    The penalties look back on `repetition_context_size` tokens, prompt included, DRY on `dry_penalty_last_n`; -1 is
    all. `seed` None draws one, so that the attribute always names what repeats the choice.
    Raises OptionError if a value is out of range.
    """

    def __init__(
        self,
        *,
        temperature: float = 0.7,
        top_p: float = 0.95,
        top_k: int = 0,
        min_p: float = 0.0,
        typical_p: float = 1.0,
        xtc_probability: float = 0.0,
        xtc_threshold: float = 0.1,
        repetition_penalty: float = 1.0,
        repetition_context_size: int = REPETITION_CONTEXT_SIZE,
        presence_penalty: float = 0.0,
        frequency_penalty: float = 0.0,
        logit_bias: Mapping[int, float] | None = None,
        dry_multiplier: float = 0.0,
        dry_base: float = 1.75,
        dry_allowed_length: int = 2,
        dry_penalty_last_n: int = -1,
        dry_sequence_breakers: Sequence[str] = DRY_SEQUENCE_BREAKERS,
        seed: int | None = None,
    ) -> None:
        _require("temperature", temperature, 0 <= temperature < math.inf, "0 or a positive number")
        self.temperature = temperature
        _require("top_p", top_p, 0 < top_p <= 1, "above 0 and at most 1")
        self.top_p = top_p
        _require("top_k", top_k, top_k >= 0, "0 (off) or a positive whole number")
        self.top_k = top_k
        _require("min_p", min_p, 0 <= min_p <= 1, "from 0 (off) to 1")
        self.min_p = min_p
        _require("typical_p", typical_p, 0 < typical_p <= 1, "above 0 and at most 1, which is off")
        self.typical_p = typical_p
        _require("xtc_probability", xtc_probability, 0 <= xtc_probability <= 1, "from 0 (off) to 1")
        self.xtc_probability = xtc_probability
        _require("xtc_threshold", xtc_threshold, 0 < xtc_threshold <= 1, "above 0 and at most 1; above 0.5 is off")
        self.xtc_threshold = xtc_threshold
        good = 0 < repetition_penalty < math.inf
        _require("repetition_penalty", repetition_penalty, good, "a positive number, 1 is off")
        self.repetition_penalty = repetition_penalty
        good = repetition_context_size >= -1
        _require("repetition_context_size", repetition_context_size, good, "a number of tokens, or -1 for all")
        self.repetition_context_size = repetition_context_size
        _require("presence_penalty", presence_penalty, math.isfinite(presence_penalty), "a finite number, 0 is off")
        self.presence_penalty = presence_penalty
        _require("frequency_penalty", frequency_penalty, math.isfinite(frequency_penalty), "a finite number, 0 is off")
        self.frequency_penalty = frequency_penalty
        self.logit_bias = dict(logit_bias or {})
        for token, bias in self.logit_bias.items():
            _require(f"logit_bias of token {token}", bias, bias < math.inf, "a number, or -inf to ban the token")
        _require("dry_multiplier", dry_multiplier, 0 <= dry_multiplier < math.inf, "0 (off) or a positive number")
        self.dry_multiplier = dry_multiplier
        _require("dry_base", dry_base, 1 <= dry_base < math.inf, "at least 1")
        self.dry_base = dry_base
        _require("dry_allowed_length", dry_allowed_length, dry_allowed_length >= 0, "0 or a positive whole number")
        self.dry_allowed_length = dry_allowed_length
        _require(
            "dry_penalty_last_n", dry_penalty_last_n, dry_penalty_last_n >= -1, "a number of tokens, or -1 for all"
        )
        self.dry_penalty_last_n = dry_penalty_last_n
        if "" in dry_sequence_breakers:
            raise OptionError("a dry_sequence_breaker is empty; give at least one character")
        self.dry_sequence_breakers = tuple(dry_sequence_breakers)
        _require("seed", seed, seed is None or 0 <= seed <= MAX_SEED, f"a whole number from 0 to {MAX_SEED}")
        self.seed = secrets.randbits(32) if seed is None else seed
        self._rng = np.random.default_rng(self.seed)
        self._piece_of: PieceOf | None = None

    def bound(self, tokenizer: Tokenizer) -> "Sampler":
        """Return a sampler that reads DRY's sequence breakers in the text of this tokenizer's ids.

        The two share the random generator: a draw of one is a draw of the other. `stream_generate` calls this.
        """
        if not self.dry_multiplier:
            return self

        def piece_of(token: int) -> str:
            stream = tokenizer.detokenizer(continues=True)
            return stream.add(token) + stream.flush()

        sampler = copy.copy(self)
        sampler._piece_of = functools.cache(piece_of)
        return sampler

    def __call__(self, logits: mx.array, history: Sequence[int]) -> int:
        """Return the id chosen from float32 logits ``[V]`` after the ids in `history`.

        Raises CheckpointError if the logits are not finite: the weights are damaged or overflow; OptionError if the
        logit bias names an id that the vocabulary lacks, or bans all, or if DRY has sequence breakers and no tokenizer.
        """
        row: Floats = np.asarray(logits)
        best = int(row.argmax())
        if not math.isfinite(row[best]):
            raise CheckpointError(
                "the model computes NaN or infinite logits; its weights are damaged or overflow their dtype"
            )
        changed = self._change(row, history)
        if changed is not row:
            best = int(changed.argmax())
            if not math.isfinite(changed[best]):
                raise OptionError("logit_bias bans every token; leave one")
        return best if self.temperature == 0 else self._draw(changed, float(changed[best]))

    def _change(self, row: Floats, history: Sequence[int]) -> Floats:
        """Return the logits after bias, penalties and DRY; `row` itself where there is nothing to do."""
        if self.logit_bias:
            row = add_bias(row, self.logit_bias)
        if (self.repetition_penalty, self.frequency_penalty, self.presence_penalty) != (1, 0, 0):
            recent = last(history, self.repetition_context_size)
            row = penalize(row, recent, self.repetition_penalty, self.frequency_penalty, self.presence_penalty)
        if self.dry_multiplier:
            if self._piece_of is None and self.dry_sequence_breakers:
                raise OptionError(
                    "this sampler has dry_sequence_breakers and no tokenizer to find them with; "
                    "take sampler.bound(tokenizer), or set dry_sequence_breakers to ()"
                )
            penalties = dry_penalties(
                last(history, self.dry_penalty_last_n),
                multiplier=self.dry_multiplier,
                base=self.dry_base,
                allowed_length=self.dry_allowed_length,
                breakers=self.dry_sequence_breakers,
                piece_of=self._piece_of or _no_text,
            )
            row = subtract(row, penalties)
        return row

    def _draw(self, row: Floats, highest: float) -> int:
        with np.errstate(over="ignore"):  # to -inf, which is right
            # A temperature that is 0 in float32 would divide 0 by 0.
            probs = np.exp((row - np.float32(highest)) / np.float32(max(self.temperature, TINY)))
        ids: Ids = np.arange(len(probs))
        if self.top_k:
            ids, probs = keep_top_k(ids, probs, self.top_k)
        if self.typical_p < 1:
            ids, probs = keep_typical_p(ids, probs, self.typical_p)
        if self.top_p < 1:
            ids, probs = keep_top_p(ids, probs, self.top_p)
        if self.min_p:
            ids, probs = keep_min_p(ids, probs, self.min_p)
        if self.xtc_probability and self._rng.random() < self.xtc_probability:
            ids, probs = exclude_top_choices(ids, probs, self.xtc_threshold)
        sums = np.cumsum(probs, dtype=np.float64)
        return int(ids[np.searchsorted(sums, self._rng.random() * sums[-1], side="right")])


def _no_text(token: int) -> str:
    return ""


def _require(name: str, value: float | None, good: bool, expected: str) -> None:
    if not good:
        raise OptionError(f"{name} is {value}; it must be {expected}")
