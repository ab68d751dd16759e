"""What a conversion cost, measured: the predictions of the result against those of the source, on a text."""

import math
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Literal

from mistral_mlx.convert.rounding.streamed import source_logits
from mistral_mlx.convert.rounding.text import read_text, source_tokenizer
from mistral_mlx.convert.sources.source import Source
from mistral_mlx.errors import MistralMLXError, OptionError, counted, shown
from mistral_mlx.measure.evaluation import DEFAULT_CONTEXT, MIN_CONTEXT, Window, evaluate, model_logits, windows
from mistral_mlx.measure.scores import Evaluation
from mistral_mlx.model.loading import load_model
from mistral_mlx.progress import Progress

from .sample_text import TEXT

MIN_TOKENS = 64  # fewer say nothing
MAX_WINDOWS = 40  # a source of 7 billion weights takes some ten seconds for each
# By the mean KL divergence in nats that they end below; docs/convert.md has the table, and models that lost so much.
VERDICTS = {0.02: "almost no loss", 0.2: "noticeable loss", 1.0: "strong loss", math.inf: "unusable"}
STRONG = 0.2  # from here on, the user is warned


def verification_windows(source: Source, text: str | PathLike[str] | Literal[True]) -> list[Window]:
    """Return the windows of a text file, or of our own text, to verify `source` on.

    The protocol is that of `evaluation`, with a smaller window if the text does not fill one, or the model was not
    trained for one. To be asked for before anything is written.

    Raises OptionError if the text cannot be read or is too short, or the source has no tokenizer to read it with.
    """
    if source.tokenizer_ids is None:
        raise OptionError("the source has no tokenizer to verify it with")
    content = TEXT if text is True else read_text(Path(text))
    tokenizer = source_tokenizer(source)
    ids = tokenizer.encode(content, bos=tokenizer.add_bos)
    if len(ids) < MIN_TOKENS:
        raise OptionError(
            f"the text {shown(str(text), limit=200)} has {counted(len(ids), 'token')}; "
            f"give one of at least {MIN_TOKENS} to verify on"
        )
    trained = source.args.max_position_embeddings
    context = max(min(DEFAULT_CONTEXT, trained, len(ids)), MIN_CONTEXT)
    bos_id = tokenizer.bos_id if tokenizer.add_bos else None
    return windows(ids, context=context, bos_id=bos_id, limit=MAX_WINDOWS)


@dataclass(frozen=True)
class Verification:
    """What comparing a conversion with its source gave: the figures, or why there are none."""

    figures: Evaluation | None = None
    problem: str | None = None

    @property
    def verdict(self) -> str | None:
        """How much was lost, in the words of VERDICTS; None without figures."""
        return None if self._kl is None else next(words for end, words in VERDICTS.items() if self._kl < end)

    @property
    def warning(self) -> str | None:
        """What to tell the user of a loss that is strong or worse; None otherwise."""
        if self._kl is None or self._kl < STRONG:
            return None
        what = "cannot be used" if self.verdict == "unusable" else "has lost much"
        return f"warning: the result {what} ({self.verdict}); take more bits, or --target-bpw with --calibrate"

    @property
    def _kl(self) -> float | None:
        return self.figures.comparison.kl.value if self.figures and self.figures.comparison else None


def verify(source: Source, folder: Path, cut: list[Window], progress: Progress | None) -> Verification:
    """Compare the model in `folder` with its `source` on the windows `cut`.

    The source is run block by block, so that it takes no more memory than its largest block; the result is loaded.
    The conversion is done when this begins: an error is returned as the problem, and not raised.
    """
    try:
        return Verification(_evaluated(source, folder, cut, progress))
    except (MistralMLXError, OSError) as error:
        return Verification(problem=str(error))


def _evaluated(source: Source, folder: Path, cut: list[Window], progress: Progress | None) -> Evaluation:
    def on_source(done: int, total: int) -> None:
        if progress:
            progress("blocks of the source verified", done, total)

    def on_target(_: str, done: int, total: int) -> None:
        if progress:
            progress("windows of the result verified", done, total)

    reference = source_logits(source, cut, on_source)
    return evaluate(cut, model_logits(load_model(folder)), reference, on_target)
