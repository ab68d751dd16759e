"""Which tokenizer a model folder has; knows no encoding."""

import os

from .errors import ModelError, TokenizerError, shown
from .folder import ModelFolder
from .tokenizer_base import Tokenizer
from .tokenizer_settings import read_object, read_settings

__all__ = ["Tokenizer", "load_tokenizer"]

SENTENCEPIECE_NAMES = (
    "tokenizer.model",
    "tokenizer.model.v7m1",
    "tokenizer.model.v7",
    "tokenizer.model.v3",
    "tokenizer.model.v2",
    "tokenizer.model.v1",
)
MAX_MODEL_BYTES = 8 * 1024 * 1024  # the largest sentencepiece models in the wild have about 5 MB


def load_tokenizer(path: str | os.PathLike[str] | ModelFolder) -> Tokenizer:
    """Return the tokenizer of the model folder at `path`.

    A sentencepiece model is preferred to tokenizer.json, as it needs no export to be right, unless config.json has a
    larger vocabulary: fine-tunes add their tokens to tokenizer.json only.

    Raises TokenizerError if there is none, or none that can be used.
    """
    folder = path if isinstance(path, ModelFolder) else ModelFolder(path)
    sentencepiece_name = next((name for name in SENTENCEPIECE_NAMES if folder.has(name)), None)
    if sentencepiece_name is None and not folder.has("tokenizer.json"):
        raise _no_tokenizer(folder)
    if sentencepiece_name is None:
        return _load_json(folder)
    return _load_sentencepiece(folder, sentencepiece_name)


def _no_tokenizer(folder: ModelFolder) -> TokenizerError:
    place = shown(str(folder.path))
    if folder.has("tekken.json"):
        return TokenizerError(
            f"{place} has only a tekken.json, which is not supported; put the model's tokenizer.json beside it"
        )
    return TokenizerError(f"{place} has no tokenizer; put the model's tokenizer.model or tokenizer.json there")


def _load_sentencepiece(folder: ModelFolder, name: str) -> Tokenizer:
    from .tokenizer_sp import SentencePieceTokenizer, load_processor

    processor = load_processor(_read_bytes(folder, name), name=name)
    if folder.has("tokenizer.json") and _config_vocab_size(folder) > processor.get_piece_size():
        return _load_json(folder)
    return SentencePieceTokenizer(processor, read_settings(folder))


def _load_json(folder: ModelFolder) -> Tokenizer:
    from .tokenizer_hf import HuggingFaceTokenizer

    return HuggingFaceTokenizer(read_object(folder, "tokenizer.json"), read_settings(folder))


def _read_bytes(folder: ModelFolder, name: str) -> bytes:
    try:
        return folder.read(name, limit=MAX_MODEL_BYTES)
    except ModelError as error:
        raise TokenizerError(str(error)) from error


def _config_vocab_size(folder: ModelFolder) -> int:
    """Return the vocabulary size in config.json, 0 where it says nothing."""
    config = folder.json("config.json") if folder.has("config.json") else {}
    nested = config.get("text_config")
    size = (nested if isinstance(nested, dict) else config).get("vocab_size")
    return size if isinstance(size, int) else 0
