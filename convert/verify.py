"""What a conversion cost, measured: the predictions of the result against those of the source, on a text."""

from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Literal

from mistral_mlx.errors import OptionError, shown
from mistral_mlx.evaluation import DEFAULT_CONTEXT, evaluate, model_logits, windows
from mistral_mlx.loading import load_model
from mistral_mlx.scores import Evaluation
from mistral_mlx.tokenizer import load_tokenizer

from .calibration.streamed import source_logits
from .sample_text import TEXT
from .source import Source

MAX_WINDOWS = 40  # a source of 7 billion weights takes some ten seconds for each

Progress = Callable[[str, int, int], None]


def check_text(source: Source, text: str | PathLike[str] | Literal[True]) -> str:
    """Return what is to be verified on, before anything is written.

    Raises OptionError if it cannot be read, or the source has no tokenizer to read it with.
    """
    if source.tokenizer_ids is None:
        raise OptionError("the source has no tokenizer to verify it with")
    if text is True:
        return TEXT
    try:
        return Path(text).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"the text {shown(str(text))} cannot be read ({shown(str(error))})") from error


def verify(source: Source, folder: Path, text: str, progress: Progress | None) -> Evaluation:
    """Return how the model in `folder` differs from its `source` on `text`.

    The protocol is that of `evaluation`, with a smaller window if the text does not fill one. The source is run block
    by block, so that it takes no more memory than its largest block; the result is loaded.

    Raises OptionError if the text is too short.
    """
    tokenizer = load_tokenizer(folder)
    ids = tokenizer.encode(text, bos=tokenizer.add_bos)
    bos_id = tokenizer.bos_id if tokenizer.add_bos else None
    cut = windows(ids, context=min(DEFAULT_CONTEXT, len(ids)), bos_id=bos_id, limit=MAX_WINDOWS)

    def on_source(done: int, total: int) -> None:
        if progress:
            progress("verifying: the source", done, total)

    def on_target(done: int, total: int, _: object) -> None:
        if progress:
            progress("verifying: the result", done, total)

    reference = source_logits(source, cut, on_source)
    return evaluate(cut, model_logits(load_model(folder)), reference, on_target)
