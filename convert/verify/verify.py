"""What a conversion cost, measured: the predictions of the result against those of the source, on a text."""

from os import PathLike
from pathlib import Path
from typing import Literal

from mistral_mlx.convert.progress import Progress
from mistral_mlx.convert.rounding.streamed import source_logits
from mistral_mlx.convert.rounding.text import read_text, source_tokenizer
from mistral_mlx.convert.sources.source import Source
from mistral_mlx.errors import OptionError, shown
from mistral_mlx.measure.evaluation import DEFAULT_CONTEXT, MIN_CONTEXT, Window, evaluate, model_logits, windows
from mistral_mlx.measure.scores import Evaluation
from mistral_mlx.model.args import ModelArgs
from mistral_mlx.model.loading import load_model

from .sample_text import TEXT

MIN_TOKENS = 64  # fewer say nothing
MAX_WINDOWS = 40  # a source of 7 billion weights takes some ten seconds for each


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
            f"the text {shown(str(text))} has {len(ids)} tokens; give one of at least {MIN_TOKENS} to verify on"
        )
    trained = ModelArgs.from_config(source.config).max_position_embeddings
    context = max(min(DEFAULT_CONTEXT, trained, len(ids)), MIN_CONTEXT)
    bos_id = tokenizer.bos_id if tokenizer.add_bos else None
    return windows(ids, context=context, bos_id=bos_id, limit=MAX_WINDOWS)


def verify(source: Source, folder: Path, cut: list[Window], progress: Progress | None) -> Evaluation:
    """Return how the model in `folder` differs from its `source` on the windows `cut`.

    The source is run block by block, so that it takes no more memory than its largest block; the result is loaded.
    """

    def on_source(done: int, total: int) -> None:
        if progress:
            progress("verifying: the source", done, total)

    def on_target(done: int, total: int, _: object) -> None:
        if progress:
            progress("verifying: the result", done, total)

    reference = source_logits(source, cut, on_source)
    return evaluate(cut, model_logits(load_model(folder)), reference, on_target)
