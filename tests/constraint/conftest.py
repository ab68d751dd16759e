"""Tokenizers of every kind, and random answers under a constraint."""

import numpy as np
import pytest
from helpers.tokenizer_files import byte_level_folder, mistral_folder, piece_json, tekken_folder, trained_sentencepiece

from mistral_mlx.constraint.guide import Guide
from mistral_mlx.constraint.vocabulary import vocabulary
from mistral_mlx.tokenizer.choose import load_tokenizer

PADDING = 5  # rows of the head that no token has


def _pieces(kind):
    def write(path):
        (path / "tokenizer.json").write_text(piece_json(kind), encoding="utf-8")
        (path / "tokenizer_config.json").write_text('{"eos_token": "</s>", "bos_token": "<s>"}')
        return path

    return write


KINDS = {
    "v1": lambda path: mistral_folder(path, "v1"),
    "v3": lambda path: mistral_folder(path, "v3"),
    "tekken": lambda path: tekken_folder(path, 3000, "v13"),
    "byte level": lambda path: byte_level_folder(path, eos_token="<|im_end|>"),
    "llama": _pieces("llama"),
    "metaspace": _pieces("metaspace"),
    "keeps blanks": lambda path: trained_sentencepiece(
        path, vocab_size=300, byte_fallback=True, remove_extra_whitespaces=False, normalization_rule_name="identity"
    ),
}


@pytest.fixture(scope="session")
def tokenizers(tmp_path_factory):
    """The tokenizers of KINDS, loaded when they are asked for."""
    loaded = {}

    def load(kind):
        if kind not in loaded:
            loaded[kind] = load_tokenizer(KINDS[kind](tmp_path_factory.mktemp("tokenizer")))
        return loaded[kind]

    return load


def new_guide(constraint, tokenizer, **options):
    rows = vocabulary(tokenizer, tokenizer.vocab_size + PADDING, tokenizer.eos_ids)
    return Guide(constraint, rows, **{"leading": tokenizer.leading} | options)


def random_answer(guide, tokenizer, rng, *, most=400, ends=0.3):
    """Return the ids of an answer with random logits, and whether it has ended; `ends` is how often it ends early."""
    ids = []
    while len(ids) < most:
        allowed = np.flatnonzero(guide.mask())
        stops = [i for i in allowed if i in tokenizer.eos_ids]
        if stops and (rng.random() < ends or len(stops) == len(allowed)):
            return ids, True
        token = int(rng.choice([i for i in allowed if i not in tokenizer.eos_ids]))
        guide.take(token)
        ids.append(token)
        if guide.finished:
            return ids, True
    return ids, False
