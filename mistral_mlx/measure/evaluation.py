"""Measures how well a model predicts a text: perplexity as llama.cpp's tool does, and the distance from a reference.

A text is cut into windows, each read with an empty cache. The caller says where logits come from; `scores` makes the
figures of them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from mistral_mlx.errors import OptionError, counted
from mistral_mlx.generation.timeline import Timeline
from mistral_mlx.model.mistral import Mistral
from mistral_mlx.progress import Progress

from .scores import SCORE, Evaluation, Row, Scores, evaluation, score

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
            f"the text has {counted(len(ids), 'token')}, and one window takes {context:,}; give a longer text or a "
            "smaller context"
        )
    first = context // 2 if stride is None else context - stride - 1
    bos = () if bos_id is None else (bos_id,)
    starts = range(0, len(ids) - context + 1, stride or context)
    return [Window((*bos, *ids[start + len(bos) : start + context]), first) for start in starts[:limit]]


class Scoring:
    """Scores windows by `logits`, and compares those with the ones that the reference `against` gives for them."""

    def __init__(self, logits: Logits, against: Logits | None = None) -> None:
        self._logits, self._against = logits, against
        self._windows: list[Scores] = []

    @property
    def n_windows(self) -> int:
        """How many windows are scored."""
        return len(self._windows)

    def add(self, window: Window) -> None:
        """Score one more window. Raises ModelError if logits are not finite."""
        self._windows.append(_scores(window, self._logits, self._against))

    def result(self) -> Evaluation:
        """Return the figures of the windows so far. Raises OptionError if there is none."""
        if not self._windows:
            raise OptionError("there is no window to evaluate")
        return evaluation(self._windows, compared=self._against is not None)


def evaluate(
    windows: Sequence[Window], logits: Logits, against: Logits | None = None, progress: Progress | None = None
) -> Evaluation:
    """Return the figures of all `windows`; `progress` counts them. See `Scoring`.

    Raises OptionError if there is no window, ModelError if logits are not finite.
    """
    scoring = Scoring(logits, against)
    for window in windows:
        scoring.add(window)
        if progress is not None:
            progress("scoring", scoring.n_windows, len(windows))
    return scoring.result()


def model_logits(model: Mistral) -> Logits:
    """Return a function that gives the logits of `model`, with an empty cache for each window."""

    def logits(window: Window) -> Iterator[mx.array]:
        ids = window.ids[:-1]  # the last one is only predicted
        start = 0
        for hidden in Timeline(model).feed(ids, step_size=STEP_SIZE):
            for row in range(max(window.first - start, 0), hidden.shape[1], HEAD_ROWS):
                yield model.logits(hidden[:, row : row + HEAD_ROWS])[0]
            start += hidden.shape[1]

    return logits


def _scores(window: Window, logits: Logits, against: Logits | None) -> Scores:
    """Return the scores of a window."""
    predictions = _rows(logits(window))
    references = iter([None] * len(window.targets)) if against is None else _rows(against(window))
    triples = zip(window.targets, predictions, references, strict=True)
    return np.array([score(position, *triple) for position, triple in enumerate(triples, window.first + 1)], SCORE)


def _rows(blocks: Iterator[mx.array]) -> Iterator[Row]:
    """Yield every row of the blocks; the two sources need not cut theirs alike."""
    for block in blocks:
        yield from np.asarray(block)
