"""The small files that travel with the weights: which of them are known, and how many tokens they speak of."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from mistral_mlx.errors import ConversionError, TokenizerError, shown
from mistral_mlx.files.folder import ModelFolder, read_json
from mistral_mlx.tokenizer.choose import MAX_MODEL_BYTES, load_tokenizer
from mistral_mlx.tokenizer.tekken import MAX_BYTES, parse_tekken

# Anything else stays behind: above all *.py, which other programs would run.
KNOWN_FILES = re.compile(
    r"tokenizer\.model(\.v\w+)?|tokenizer\.json|tokenizer_config\.json|special_tokens_map\.json|added_tokens\.json|"
    r"vocab\.json|merges\.txt|chat_template\.(jinja|json)|generation_config\.json|tekken\.json|SYSTEM_PROMPT\.txt|LICENSE[\w.-]*"
)
VOCABULARIES = re.compile(r"tokenizer\.model(\.v\w+)?|tokenizer\.json|tekken\.json|vocab\.json")
CONFIGS = ("tokenizer_config.json", "generation_config.json")  # where other programs look for auto_map


def find_files(folder: ModelFolder) -> dict[str, Path | bytes]:
    """Return the known files of `folder` by name; a config naming code to run is rewritten without it."""
    names = sorted(p.name for p in folder.path.iterdir() if KNOWN_FILES.fullmatch(p.name) and p.is_file())
    found: dict[str, Path | bytes] = {name: folder.file(name) for name in names}
    for name in CONFIGS:
        if name in found and "auto_map" in (config := folder.json(name)):
            del config["auto_map"]
            found[name] = json_bytes(config)
    return found


def json_bytes(value: Mapping[str, object]) -> bytes:
    """Return `value` as the text of a JSON file."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def is_vocabulary(name: str) -> bool:
    """Whether the file `name` holds the tokens of a tokenizer."""
    return VOCABULARIES.fullmatch(name) is not None


def largest_vocabulary(files: Mapping[str, Path | bytes]) -> int | None:
    """Return one more than the largest token id that text can become; None if none of `files` holds a vocabulary.

    What the engine reads is counted as `load` counts it, so that a [PAD] behind the last row of the embedding is no
    obstacle. Otherwise all ids in all files count.
    """
    counts = {path: _ids(path) for name, path in files.items() if is_vocabulary(name) and isinstance(path, Path)}
    if not counts:
        return None
    try:
        return load_tokenizer(next(iter(counts)).parent).rows_needed()
    except TokenizerError:
        if all(path.name == "tekken.json" for path in counts):  # which no other program will make sense of, either
            raise
        return max(counts.values())


def check_vocabulary(tokenizer_ids: int | None, vocab_size: int) -> None:
    """Raise ConversionError if the tokenizer gives ids that the embedding has no row for."""
    if tokenizer_ids is not None and tokenizer_ids > vocab_size:
        raise ConversionError(
            f"the tokenizer has {tokenizer_ids:,} tokens and the embedding only {vocab_size:,} rows; "
            "they belong to different models"
        )


def _ids(path: Path) -> int:
    if path.suffix != ".json":
        return _sentencepiece_ids(path)
    if path.name == "tekken.json":
        config = parse_tekken(ModelFolder(path.parent).text(path.name, limit=MAX_BYTES)).get("config")
        count = config.get("default_vocab_size") if isinstance(config, dict) else None
        return _largest(path, [count - 1] if type(count) is int else [])  # the vocabulary is cut there
    content = read_json(path)
    if path.name == "vocab.json":
        return _largest(path, content.values())
    model = content.get("model")
    vocab = model.get("vocab") if isinstance(model, dict) else None
    ids = (
        list(vocab.values()) if isinstance(vocab, dict) else list(range(len(vocab))) if isinstance(vocab, list) else []
    )
    added = content.get("added_tokens")
    extra = [token.get("id") for token in added if isinstance(token, dict)] if isinstance(added, list) else []
    return _largest(path, ids + extra)


def _largest(path: Path, ids: Iterable[object]) -> int:
    given = list(ids)
    found = [n for n in given if isinstance(n, int) and n >= 0]
    if not found or len(found) != len(given):
        raise TokenizerError(f"{shown(path.name)} does not list its tokens with their ids; the file is damaged")
    return max(found) + 1


def _sentencepiece_ids(path: Path) -> int:
    from mistral_mlx.tokenizer.sentencepiece import load_processor

    model = ModelFolder(path.parent).read(path.name, limit=MAX_MODEL_BYTES)
    return int(load_processor(model, name=path.name).get_piece_size())
