"""Cases for the readers of tokenizer files."""

import json
from pathlib import Path
from random import Random

from fuzz.mutations import damaged, dumped, mutated
from fuzz.reader import Reader
from helpers.tiny_folder import train_tokenizer
from helpers.tokenizer_files import CHATML, byte_level_json, piece_json
from hostile.case import tiny_tekken

from mistral_mlx.tokenizer.choose import load_tokenizer


class JSONTokenizer(Reader):
    """tokenizer.json and the small files beside it."""

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        settings = {
            "eos_token": "</s>",
            "bos_token": {"content": "<s>"},
            "chat_template": CHATML,
            "add_bos_token": True,
        }
        self.settings = settings | {"added_tokens_decoder": {"2": {"content": "</s>", "special": True}}}
        self.documents = [_small(json.loads(text)) for text in (byte_level_json(), piece_json("llama"))]
        self.documents.append(_small(json.loads(piece_json("metaspace"))))

    def __call__(self, rng: Random) -> None:
        document, settings = rng.choice(self.documents), self.settings
        if rng.random() < 0.7:
            document = mutated(document, rng)
        else:
            settings = mutated(settings, rng)
        (self.place / "tokenizer.json").write_bytes(dumped(document, rng))
        (self.place / "tokenizer_config.json").write_bytes(dumped(settings, rng))
        _use(load_tokenizer(self.place))


class Tekken(Reader):
    """tekken.json."""

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self.document = tiny_tekken()

    def __call__(self, rng: Random) -> None:
        (self.place / "tekken.json").write_bytes(dumped(mutated(self.document, rng), rng))
        _use(load_tokenizer(self.place))


class Sentencepiece(Reader):
    """tokenizer.model."""

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self.model = train_tokenizer()

    def __call__(self, rng: Random) -> None:
        (self.place / "tokenizer.model").write_bytes(damaged(self.model, rng, whole=rng.random() < 0.7))
        _use(load_tokenizer(self.place))


def _small(document: dict) -> dict:
    """Leave most of the vocabulary out, so that changes hit the rest."""
    vocab = document["model"]["vocab"]
    document["model"]["vocab"] = {text: i for i, text in enumerate(list(vocab)[:290])}
    kept = document["model"]["vocab"]
    pairs = [merge if isinstance(merge, list) else merge.split(" ") for merge in document["model"]["merges"]]
    document["model"]["merges"] = [p for p in pairs if {*p, "".join(p)} <= kept.keys()]
    return document


def _use(tokenizer) -> None:
    """Texts go in and come out, and no control token is ever among their ids."""
    for text in ("Hello, <s>[INST] é", "  a\n"):
        ids = tokenizer.encode(text)
        assert not set(ids) & set(tokenizer.control.values())
        tokenizer.decode([*ids, tokenizer.vocab_size - 1, tokenizer.vocab_size])
