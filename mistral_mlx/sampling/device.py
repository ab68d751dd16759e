"""From logits to the next token id in MLX's operations: on a GPU, the next step need not wait for the id.

These are the filters of `filters.py` that are cheap there, in the same order. The random number comes from the same
generator, so that a seed gives the same ids, but for what float32 rounds.
"""

import mlx.core as mx
import numpy as np

from .filters import TINY
from .knobs import knobs
from .options import SamplingOptions

OPTIONS = {"top_k", "top_p", "min_p"}  # that can be used here; the others need the ids before, or more than one number
NOT_FINITE = -1  # in place of an id
LARGEST = float(np.nextafter(np.float32(1), np.float32(0)))  # below 1


def is_cheap(options: SamplingOptions) -> bool:
    """Whether `choose` can do what the options ask for."""
    names = {option.name for option in knobs(type(options)).values() if option.off is not None}
    return not options.logit_bias and not any(options.uses(name) for name in names - OPTIONS)


def choose(logits: mx.array, options: SamplingOptions, number: float) -> mx.array:
    """Return the int32 id ``[]`` chosen from float32 logits ``[V]`` by a random `number` of [0, 1).

    It is NOT_FINITE if the largest logit is not finite, or one is NaN.
    """
    token = mx.argmax(logits) if options.temperature == 0 else _draw(logits, options, number)
    return mx.where(mx.isfinite(mx.logsumexp(logits)), token.astype(mx.int32), NOT_FINITE)


def _draw(logits: mx.array, options: SamplingOptions, number: float) -> mx.array:
    probs = mx.exp((logits - logits.max()) / max(options.temperature, TINY))  # up to a common factor
    ids = None
    if options.uses("top_k") or options.uses("top_p"):
        ids = mx.argsort(-probs)
        probs = probs[ids]
    if options.uses("top_k"):
        probs = mx.where(mx.arange(probs.size) < options.top_k, probs, 0)
    if options.uses("top_p"):  # keep those before which p is not reached
        probs = mx.where(mx.cumsum(probs, inclusive=False) < options.top_p * probs.sum(), probs, 0)
    if options.uses("min_p"):
        probs = mx.where(probs >= options.min_p * probs.max(), probs, 0)
    sums = mx.where(probs > 0, mx.cumsum(probs), 0)  # an excluded token is never the first above the number
    place = mx.argmax(sums > min(number, LARGEST) * sums.max())
    return place if ids is None else ids[place]
