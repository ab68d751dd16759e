"""From logits to the next token id, in NumPy; knows nothing of models or text.

The order is that of Mistral's reference and of HF transformers: repetition penalty, temperature, top-k, top-p, min-p,
then the draw. Each filter keeps at least the likeliest token. NumPy, because MLX's sort and softmax take 11 ms for a
vocabulary of 131,072 on a CPU, and this under one.
"""

import math
import secrets
from collections.abc import Sequence

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from .errors import CheckpointError, OptionError

Ids = NDArray[np.int64]
Floats = NDArray[np.float32]  # logits, or probabilities up to a common factor

REPETITION_CONTEXT_SIZE = 64  # tokens looked back on, as llama.cpp and ollama do
MAX_SEED = 2**63 - 1


class Sampler:
    """Chooses a token id from a row of logits; `temperature` 0 is the argmax.

    `seed` None draws one, so that the attribute always names what repeats the choice.
    Raises OptionError if a value is out of range.
    """

    def __init__(
        self,
        *,
        temperature: float = 0.7,
        top_p: float = 0.95,
        top_k: int = 0,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
        seed: int | None = None,
    ) -> None:
        _require("temperature", temperature, 0 <= temperature < math.inf, "0 or a positive number")
        _require("top_p", top_p, 0 < top_p <= 1, "above 0 and at most 1")
        _require("top_k", top_k, top_k >= 0, "0 (off) or a positive whole number")
        _require("min_p", min_p, 0 <= min_p <= 1, "from 0 (off) to 1")
        _require(
            "repetition_penalty", repetition_penalty, 0 < repetition_penalty < math.inf, "a positive number, 1 is off"
        )
        _require("seed", seed, seed is None or 0 <= seed <= MAX_SEED, f"a whole number from 0 to {MAX_SEED}")
        self.temperature, self.top_p, self.top_k, self.min_p = temperature, top_p, top_k, min_p
        self.repetition_penalty = repetition_penalty
        self.seed = secrets.randbits(32) if seed is None else seed
        self._rng = np.random.default_rng(self.seed)

    def __call__(self, logits: mx.array, history: Sequence[int]) -> int:
        """Return the id chosen from float32 logits ``[V]`` after the ids in `history`.

        Raises CheckpointError if the logits are not finite: the probs are damaged or overflow.
        """
        row: Floats = np.asarray(logits)
        if self.repetition_penalty != 1:
            row = penalize(row, history[-REPETITION_CONTEXT_SIZE:], self.repetition_penalty)
        best = int(row.argmax())
        if not math.isfinite(row[best]):
            raise CheckpointError(
                "the model computes NaN or infinite logits; its probs are damaged or overflow their dtype"
            )
        return best if self.temperature == 0 else self._draw(row, float(row[best]))

    def _draw(self, row: Floats, highest: float) -> int:
        # In float64: a temperature that is 0 in float32 would divide 0 by 0.
        probs = np.exp((row.astype(np.float64) - highest) / self.temperature).astype(np.float32)
        ids: Ids = np.arange(len(probs))
        if self.top_k:
            ids, probs = keep_top_k(ids, probs, self.top_k)
        if self.top_p < 1:
            ids, probs = keep_top_p(ids, probs, self.top_p)
        if self.min_p:
            ids, probs = keep_min_p(ids, probs, self.min_p)
        sums = np.cumsum(probs, dtype=np.float64)
        return int(ids[np.searchsorted(sums, self._rng.random() * sums[-1], side="right")])


def penalize(row: Floats, recent: Sequence[int], penalty: float) -> Floats:
    """Return logits in which those of `recent` ids are made less likely (Keskar et al., CTRL, 2019, section 4.1)."""
    row, ids = row.copy(), np.unique(np.asarray(recent, np.int64))
    row[ids] = np.where(row[ids] > 0, row[ids] / penalty, row[ids] * penalty)
    return row


def keep_top_k(ids: Ids, probs: Floats, k: int) -> tuple[Ids, Floats]:
    """Keep the `k` likeliest."""
    if k >= len(ids):
        return ids, probs
    kept = np.argpartition(probs, -k)[-k:]
    return ids[kept], probs[kept]


def keep_top_p(ids: Ids, probs: Floats, p: float) -> tuple[Ids, Floats]:
    """Keep the fewest of the likeliest that together have at least probability `p`, likeliest first."""
    needed = p * float(probs.sum(dtype=np.float64))
    n_sorted = min(64, len(ids))  # mostly enough; sorting a whole vocabulary costs more than the rest together
    while True:
        kept_ids, kept = keep_top_k(ids, probs, n_sorted)
        order = np.argsort(-kept, kind="stable")
        sums = np.cumsum(kept[order], dtype=np.float64)
        if sums[-1] >= needed or n_sorted == len(ids):
            order = order[: int(np.searchsorted(sums, needed)) + 1]
            return kept_ids[order], kept[order]
        n_sorted = min(8 * n_sorted, len(ids))


def keep_min_p(ids: Ids, probs: Floats, p: float) -> tuple[Ids, Floats]:
    """Keep those at least `p` times as likely as the likeliest (Nguyen et al., 2024)."""
    kept = probs >= p * probs.max()
    return ids[kept], probs[kept]


def _require(name: str, value: float | None, good: bool, expected: str) -> None:
    if not good:
        raise OptionError(f"{name} is {value}; it must be {expected}")
