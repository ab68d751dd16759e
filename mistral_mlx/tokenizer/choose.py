"""Loads the tokenizer of a model folder, after choosing among its files."""

import os

from mistral_mlx.errors import ModelError, TokenizerError, shown
from mistral_mlx.files.folder import ModelFolder

from .base import Tokenizer
from .settings import read_object, read_settings, read_text

__all__ = ["Tokenizer", "load_tokenizer"]

SENTENCEPIECE_NAMES = (
    "tokenizer.model",
    "tokenizer.model.v7m1",
    "tokenizer.model.v7",
    "tokenizer.model.v3",
    "tokenizer.model.v2",
    "tokenizer.model.v1",
)
MAX_MODEL_BYTES = 8 * 1024 * 1024  # the largest known sentencepiece models have about 5 MB


def load_tokenizer(path: str | os.PathLike[str] | ModelFolder) -> Tokenizer:
    """Return the tokenizer of the model folder at `path`.

    The order is sentencepiece, tokenizer.json, tekken.json. A sentencepiece model comes first, because it is the
    original and not an export. But if config.json has a larger vocabulary, tokenizer.json comes first: fine-tunes add
    and rename tokens only there. For the same reason it comes before tekken.json.

    Raises TokenizerError if the folder has no tokenizer, or none that can be used.
    """
    folder = path if isinstance(path, ModelFolder) else ModelFolder(path)
    sentencepiece_name = next((name for name in SENTENCEPIECE_NAMES if folder.has(name)), None)
    if sentencepiece_name is not None:
        return _load_sentencepiece(folder, sentencepiece_name)
    if folder.has("tokenizer.json") or folder.has("tekken.json"):
        return _load_json(folder)
    raise TokenizerError(
        f"{shown(str(folder.path))} has no tokenizer; "
        "put the model's tokenizer.model, tokenizer.json or tekken.json there"
    )


def _load_sentencepiece(folder: ModelFolder, name: str) -> Tokenizer:
    from .sentencepiece import SentencePieceTokenizer, load_processor

    processor = load_processor(_read_bytes(folder, name), name=name)
    has_json = folder.has("tokenizer.json") or folder.has("tekken.json")
    if has_json and _config_vocab_size(folder) > processor.get_piece_size():
        return _load_json(folder)
    return SentencePieceTokenizer(processor, read_settings(folder))


def _load_json(folder: ModelFolder) -> Tokenizer:
    if folder.has("tokenizer.json"):
        from .huggingface import HuggingFaceTokenizer

        return HuggingFaceTokenizer(read_object(folder, "tokenizer.json"), read_settings(folder))
    from .tekken import MAX_BYTES, TekkenTokenizer, parse_tekken

    document = parse_tekken(read_text(folder, "tekken.json", limit=MAX_BYTES))
    return TekkenTokenizer(document, read_settings(folder))


def _read_bytes(folder: ModelFolder, name: str) -> bytes:
    try:
        return folder.read(name, limit=MAX_MODEL_BYTES)
    except ModelError as error:
        raise TokenizerError(str(error)) from error


def _config_vocab_size(folder: ModelFolder) -> int:
    """Return the vocabulary size in config.json, 0 if it is not set."""
    config = folder.json("config.json") if folder.has("config.json") else {}
    nested = config.get("text_config")
    size = (nested if isinstance(nested, dict) else config).get("vocab_size")
    return size if isinstance(size, int) else 0
