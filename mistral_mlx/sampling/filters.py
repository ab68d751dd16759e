"""Filters decide which tokens may be drawn.

A filter of FILTERS keeps at least one of `ids`, and their probabilities; a filter of LOGIT_FILTERS sets logits to -inf.
Probabilities are known up to a common factor. Every filter sees only the tokens that the filters before it have kept.
No filter sorts a whole vocabulary unless the distribution is nearly flat.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
Floats = NDArray[np.float32]  # logits, or probabilities up to a common factor
Values = Floats | NDArray[np.float64]

FEW = 64  # usually enough to hold all kept tokens; sorting a whole vocabulary costs more than all other steps
STEP = 256  # factor by which top-p lowers its cut; comparing is 20 times faster than sorting
TINY = float(np.finfo(np.float32).tiny)


def keep_top_k(ids: Ids, probs: Floats, k: int) -> tuple[Ids, Floats]:
    """Keep the `k` most likely tokens."""
    if k >= len(ids):
        return ids, probs
    kept = np.argpartition(probs, -k)[-k:]
    return ids[kept], probs[kept]


def keep_top_p(ids: Ids, probs: Floats, p: float) -> tuple[Ids, Floats]:
    """Keep the fewest most likely tokens that together have at least probability `p`, in order.

    Nucleus sampling: Holtzman et al., The Curious Case of Neural Text Degeneration, 2020, section 3.1.
    """
    needed, cut = p * float(probs.sum(dtype=np.float64)), float(probs.max())
    while True:
        cut = cut / STEP if cut / STEP >= TINY else 0.0
        above = np.flatnonzero(probs >= np.float32(cut))
        if not cut or float(probs[above].sum(dtype=np.float64)) >= needed:
            kept = above[_first_that_reach(needed, probs[above], by=-probs[above])]
            return ids[kept], probs[kept]


def keep_typical_p(ids: Ids, probs: Floats, p: float) -> tuple[Ids, Floats]:
    """Keep the fewest tokens of most typical surprise with at least probability `p` together.

    With the entropy H = -Σ q ln q, the distance of a token is |H + ln q| (Meister et al., Locally Typical Sampling,
    2023, equation 10; llama.cpp's ``--typical``). The most likely token may be left out.
    """
    q = probs.astype(np.float64) / probs.sum(dtype=np.float64)
    with np.errstate(divide="ignore"):
        surprise = -np.log(q)  # inf where q is 0, so such a token comes last
    entropy = float(np.dot(q, np.where(q > 0, surprise, 0.0)))
    kept = _first_that_reach(p, q, by=np.abs(surprise - entropy))
    return ids[kept], probs[kept]


def keep_min_p(ids: Ids, probs: Floats, p: float) -> tuple[Ids, Floats]:
    """Keep tokens at least `p` times as likely as the most likely one (Nguyen et al., 2024)."""
    kept = probs >= p * probs.max()
    return ids[kept], probs[kept]


def exclude_top_choices(ids: Ids, probs: Floats, threshold: float) -> tuple[Ids, Floats]:
    """Remove all tokens of at least probability `threshold` except the least likely of them.

    XTC (p-e-w, text-generation-webui #6335; llama.cpp's ``--xtc-threshold``). The caller draws with
    ``--xtc-probability`` whether to do this at all. If several are least likely, the one with the lowest id stays.
    """
    above = np.flatnonzero(probs >= threshold * probs.sum(dtype=np.float64))
    if len(above) < 2:
        return ids, probs
    left_out = np.ones(len(above), bool)
    left_out[np.lexsort((ids[above], probs[above]))[0]] = False
    kept = np.delete(np.arange(len(ids)), above[left_out])
    return ids[kept], probs[kept]


def cut_top_n_sigma(logits: Floats, n: float) -> Floats:
    """Set the logits ``[V]`` that are more than `n` standard deviations below the highest to -inf.

    Top-nσ (Tang et al., Top-nσ: Not All Logits Are You Need, 2024; llama.cpp's ``--top-nsigma``). Logits of -inf do not
    count. The result is the same at every temperature.
    """
    finite = logits[np.isfinite(logits)].astype(np.float64)
    lowest = float(finite.max() - n * finite.std())
    return np.where(logits >= lowest, logits, np.float32(-np.inf))


# The filters of a draw in their order, by the option whose value they take.
FILTERS: tuple[tuple[str, Callable[[Ids, Floats, int], tuple[Ids, Floats]]], ...] = (
    ("top_k", keep_top_k),
    ("typical_p", keep_typical_p),
    ("top_p", keep_top_p),
    ("min_p", keep_min_p),
)

# Filters that need logits, which small temperatures do not turn to 0; they act before those above.
LOGIT_FILTERS: tuple[tuple[str, Callable[[Floats, float], Floats]], ...] = (("top_n_sigma", cut_top_n_sigma),)


def _first_that_reach(needed: float, probs: Values, *, by: Values) -> NDArray[np.int64]:
    """Return the fewest indices, in the order of `by`, whose `probs` sum to at least `needed`."""
    n_sorted = min(FEW, len(probs))
    while True:
        n_all = n_sorted == len(probs)
        places = np.arange(len(probs)) if n_all else np.argpartition(by, n_sorted - 1)[:n_sorted]
        places = places[np.argsort(by[places], kind="stable")]
        sums = np.cumsum(probs[places], dtype=np.float64)
        if sums[-1] >= needed or n_all:
            return places[: int(np.searchsorted(sums, needed)) + 1]
        n_sorted = min(8 * n_sorted, len(probs))
