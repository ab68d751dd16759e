"""The score of a prediction against what came, and the figures made of many: perplexity, KL divergence, their errors.

The definitions are those of llama.cpp's perplexity tool; docs/eval.md has them. All sums are float64.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mistral_mlx.errors import ModelError

PERCENTILES = (0.1, 1.0, 5.0, 10.0, 50.0, 90.0, 95.0, 99.0, 99.9)
N_BUCKETS = 16  # of the curve
MAX_NLL = 700.0  # no model that works is so sure: e ** -700 is next to the least float64

Row = NDArray[np.float32]
Floats = NDArray[np.float64]


class TokenScore(NamedTuple):
    """How well one token was predicted; the last three are NaN without a reference."""

    position: int  # in its window
    nll: float  # -ln of its probability
    reference_nll: float = math.nan
    kl: float = math.nan  # of the model's prediction from the reference's, in nats
    same_top: float = math.nan  # 1 if both have the same most likely token, else 0


SCORE = np.dtype({"names": TokenScore._fields, "formats": [np.int64, *[np.float64] * 4]})
Scores = NDArray[np.void]  # [n] TokenScores of SCORE


class Mean(NamedTuple):
    """A mean and its standard error."""

    value: float
    error: float


class Bucket(NamedTuple):
    """The means over the tokens at positions `first` to `last` of their windows."""

    first: int
    last: int
    n_tokens: int
    nll: float
    kl: float | None


@dataclass(frozen=True)
class Comparison:
    """How a model's predictions differ from those of a reference, Q and P: what llama.cpp calls Q and base."""

    reference_perplexity: Mean
    perplexity_ratio: Mean  # perplexity / reference's
    log_perplexity_ratio: Mean
    correlation: float | None  # of the two nll; None if one of them is always the same
    kl: Mean  # KL(P || Q)
    kl_max: float
    kl_percentiles: dict[str, float]
    same_top: Mean  # share of the tokens, 0 to 1
    mean_delta_p: Mean  # q - p of the token that came, as a share
    rms_delta_p: Mean


@dataclass(frozen=True)
class Evaluation:
    """What the scored tokens of some windows say about a model."""

    n_windows: int
    n_tokens: int  # scored
    nll: Mean  # per token
    perplexity: Mean
    curve: tuple[Bucket, ...]  # in order of position
    comparison: Comparison | None  # with the reference, if there was one


def score(position: int, token: int, logits: Row, reference: Row | None) -> TokenScore:
    """Return the score of `token`, predicted by float32 logits ``[V]``.

    Raises ModelError if they are not finite, or make the token as good as impossible.
    """
    z, top = _shifted(logits)
    log_sum = math.log(np.exp(z).sum())
    nll = _checked(log_sum - z[token])
    if reference is None:
        return TokenScore(position, nll)
    z_ref, top_ref = _shifted(reference)
    weights = np.exp(z_ref)
    total = weights.sum()
    log_sum_ref = math.log(total)
    reference_nll = _checked(log_sum_ref - z_ref[token])
    weights *= z_ref - z  # not a product by BLAS, whose threads would wait for each other where cores are busy
    kl = float(weights.sum() / total) + log_sum - log_sum_ref  # = sum of p * (ln p - ln q)
    return TokenScore(position, nll, reference_nll, max(kl, 0.0), float(top == top_ref))  # rounding may give -1e-17


def evaluation(windows: Sequence[Scores], *, compared: bool) -> Evaluation:
    """Return the figures of the scores of some windows; `compared` if they were compared with a reference."""
    scores = np.concatenate(windows)
    nll = scores["nll"]
    return Evaluation(
        n_windows=len(windows),
        n_tokens=len(scores),
        nll=_mean(nll),
        perplexity=_exp(_mean(nll)),
        curve=_curve(scores, compared=compared),
        comparison=_comparison(scores) if compared else None,
    )


def _shifted(logits: Row) -> tuple[Floats, int]:
    """Return the logits as float64, the largest of them 0, and its index."""
    top = int(logits.argmax())
    return np.subtract(logits, logits[top], dtype=np.float64), top


def _checked(nll: float) -> float:
    if not nll < MAX_NLL:
        raise ModelError(
            f"the model gives a token of the text the logarithmic probability {-nll:g}; its weights are damaged"
        )
    return float(nll)


def _comparison(scores: Scores) -> Comparison:
    nll, base, kl, same_top = (scores[name] for name in ("nll", "reference_nll", "kl", "same_top"))
    log_ratio = _mean(nll - base)  # paired, so the error takes the correlation into account
    delta = np.exp(-nll) - np.exp(-base)
    return Comparison(
        reference_perplexity=_exp(_mean(base)),
        perplexity_ratio=_exp(log_ratio),
        log_perplexity_ratio=log_ratio,
        correlation=float(np.corrcoef(nll, base)[0, 1]) if min(np.ptp(nll), np.ptp(base)) > 0 else None,
        kl=_mean(kl),
        kl_max=float(kl.max()),
        kl_percentiles={f"{p:g}": float(v) for p, v in zip(PERCENTILES, np.percentile(kl, PERCENTILES), strict=True)},
        same_top=_mean(same_top),
        mean_delta_p=_mean(delta),
        rms_delta_p=_root(_mean(delta**2)),
    )


def _mean(values: Floats) -> Mean:
    """Return the mean with its standard error, 0 for a single value."""
    return Mean(float(values.mean()), float(values.std() / math.sqrt(max(len(values) - 1, 1))))


def _exp(mean: Mean) -> Mean:
    value = math.exp(mean.value)
    return Mean(value, value * mean.error)


def _root(mean: Mean) -> Mean:
    value = math.sqrt(mean.value)
    return Mean(value, 0.5 / value * mean.error if value else 0.0)


def _curve(scores: Scores, *, compared: bool) -> tuple[Bucket, ...]:
    """Return the means by position, in buckets of equal width; those without a token are left out."""
    position = scores["position"]
    low, n = position.min(), np.ptp(position) + 1
    edges = low + np.arange(N_BUCKETS + 1) * n // N_BUCKETS if n > N_BUCKETS else np.arange(low, low + n + 1)
    buckets = []
    for first, end in pairwise(edges):
        here = scores[(first <= position) & (position < end)]
        if len(here):
            kl = float(here["kl"].mean()) if compared else None
            buckets.append(Bucket(int(first), int(end) - 1, len(here), float(here["nll"].mean()), kl))
    return tuple(buckets)
