"""How well a model predicts a text: perplexity as llama.cpp's tool measures it, and how far it is from a reference.

A text is cut into windows, each read with an empty cache. Where logits come from is the caller's business; what is
made of them stands in `scores`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from mistral_mlx.errors import OptionError
from mistral_mlx.model.cache import make_cache
from mistral_mlx.model.mistral import Mistral

from .scores import Evaluation, Floats, Row, evaluation, score

DEFAULT_CONTEXT = 512  # llama-perplexity's
MIN_CONTEXT = 3  # one token is scored
STEP_SIZE = 256  # tokens; bounds the memory of a step
HEAD_ROWS = 64  # bounds the logits: 34 MB with a vocabulary of 131,072


@dataclass(frozen=True)
class Window:
    """Ids that are read together; the positions `first` to ``len(ids) - 2`` are scored by the id behind each."""

    ids: tuple[int, ...]
    first: int

    @property
    def targets(self) -> tuple[int, ...]:
        """What the scored positions should predict."""
        return self.ids[self.first + 1 :]


Logits = Callable[[Window], Iterator[mx.array]]  # float32 [rows, V] blocks for the scored positions, in order
OnProgress = Callable[[int, int, Callable[[], Evaluation]], None]  # (windows done, of how many, gives what they say)


def windows(
    ids: Sequence[int],
    *,
    context: int = DEFAULT_CONTEXT,
    stride: int | None = None,
    bos_id: int | None = None,
    limit: int | None = None,
) -> list[Window]:
    """Cut `ids` into windows of `context`, at most `limit`, the first id of each replaced by `bos_id` if there is one.

    Without a stride they do not overlap, and the second half of each is scored: ids ``context // 2 + 1`` and on. With
    one there is a window every `stride` ids, and its last `stride` ids are scored, so that none is scored twice. Ids
    behind the last whole window are left out.

    Raises OptionError if the numbers cannot be, or the ids do not fill a window.
    """
    if context < MIN_CONTEXT:
        raise OptionError(f"context is {context}; it must be at least {MIN_CONTEXT}")
    if stride is not None and not 1 <= stride < context:
        raise OptionError(f"stride is {stride}; it must be 1 to {context - 1}, one less than the context")
    if limit is not None and limit < 1:
        raise OptionError(f"the number of windows is {limit}; it must be at least 1")
    if len(ids) < context:
        raise OptionError(
            f"the text has {len(ids)} tokens, and one window takes {context}; give a longer text or a smaller context"
        )
    first = context // 2 if stride is None else context - stride - 1
    bos = () if bos_id is None else (bos_id,)
    starts = range(0, len(ids) - context + 1, stride or context)
    return [Window((*bos, *ids[start + len(bos) : start + context]), first) for start in starts[:limit]]


def evaluate(
    windows: Sequence[Window], logits: Logits, against: Logits | None = None, progress: OnProgress | None = None
) -> Evaluation:
    """Score every window by `logits`, and compare those with the ones that the reference `against` gives for it.

    Raises OptionError if there is no window, ModelError if logits are not finite.
    """
    if not windows:
        raise OptionError("there is no window to evaluate")
    tables: list[Floats] = []

    def so_far() -> Evaluation:
        return evaluation(tables, compared=against is not None)

    for window in windows:
        tables.append(_scores(window, logits, against))
        if progress is not None:
            progress(len(tables), len(windows), so_far)
    return so_far()


def model_logits(model: Mistral) -> Logits:
    """Return what gives the logits of `model`, with a fresh cache for each window."""

    def logits(window: Window) -> Iterator[mx.array]:
        cache = make_cache(model.args)
        ids = window.ids[:-1]  # nothing is behind the last
        for start in range(0, len(ids), STEP_SIZE):
            step = mx.array([ids[start : start + STEP_SIZE]])
            hidden = model.hidden(step, cache, lambda n_blocks: None)  # in pieces, so that signals are heard
            mx.eval([hidden, *(c.keys for c in cache), *(c.values for c in cache)])
            for row in range(max(window.first - start, 0), step.shape[1], HEAD_ROWS):
                yield model.logits(hidden[:, row : row + HEAD_ROWS])[0]

    return logits


def _scores(window: Window, logits: Logits, against: Logits | None) -> Floats:
    """Return the TokenScores of a window, ``[n, 5]``."""
    predictions = _rows(logits(window))
    references = iter([None] * len(window.targets)) if against is None else _rows(against(window))
    triples = zip(window.targets, predictions, references, strict=True)
    return np.array([score(position, *triple) for position, triple in enumerate(triples, window.first + 1)])


def _rows(blocks: Iterator[mx.array]) -> Iterator[Row]:
    """Yield every row of the blocks; the two sources need not cut theirs alike."""
    for block in blocks:
        yield from np.asarray(block)
