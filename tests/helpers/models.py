"""Tiny seeded models, a tokenizer of letters, and a sampler with a fixed answer."""

import json

import mlx.core as mx
import numpy as np

from mistral_mlx.model.args import ModelArgs, expected_shapes
from mistral_mlx.model.cache_options import DEFAULT
from mistral_mlx.model.mistral import Decoder, Mistral
from mistral_mlx.tokenizer.base import Tokenizer, TokenizerTraits
from mistral_mlx.tokenizer.detokenizer import LeadingSpace, PieceDetokenizer

TINY = {
    "model_type": "mistral",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 64,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "sliding_window": 8,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
    "eos_token_id": 2,
}


def interrupting(function, countdown):
    """Return `function` with an interrupt at call ``countdown[0]``; the count can be shared."""

    def interrupted(*args, **kwargs):
        countdown[0] -= 1
        if countdown[0] == 0:
            raise KeyboardInterrupt
        return function(*args, **kwargs)

    return interrupted


def tiny_config(**changes):
    return {**TINY, **changes}


def tiny_weights(args, *, seed=0, dtype=np.float32):
    """Return random weights by Hugging Face name, large enough that attention and order matter."""
    rng = np.random.default_rng(seed)
    weights = {}
    for name, shape in expected_shapes(args).items():
        if name == "lm_head.weight" and args.tie_word_embeddings:
            continue
        scale = 1.0 if len(shape) == 1 else 2.0 / np.sqrt(shape[-1])
        weights[name] = (rng.normal(size=shape) * scale + (len(shape) == 1)).astype(dtype)
    return weights


def tiny_model(*, seed=0, choice=DEFAULT, **changes):
    """Return a model and its weights; `choice` is that of its cache."""
    args = choice.applied(ModelArgs.from_config(tiny_config(**changes)))
    weights = tiny_weights(args, seed=seed)
    model = Mistral(args, tied="lm_head.weight" not in weights)
    model.load_weights([(name, mx.array(value)) for name, value in weights.items()])
    return model, weights


def write_folder(path, config, weights, *, files=None):
    """Write a model folder: config.json, model.safetensors, and further JSON `files` by name."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(config))
    arrays = {name: value if isinstance(value, mx.array) else mx.array(value) for name, value in weights.items()}
    mx.save_safetensors(str(path / "model.safetensors"), arrays)
    for name, value in (files or {}).items():
        (path / name).write_text(json.dumps(value))
    return path


class LetterTokenizer(Tokenizer):
    """One id per letter, and Mistral's v3 control tokens: a vocabulary of 64."""

    LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ .,\n\t"
    leading = LeadingSpace.FIRST_PIECE

    def __init__(self, *, has_chat_format=True):
        control = {"<s>": 1, "</s>": 2, "[INST]": 3, "[/INST]": 4, "[PREFIX]": 5}
        super().__init__(
            TokenizerTraits(
                vocab_size=6 + len(self.LETTERS),
                bos_id=1,
                eos_id=2,
                eos_ids=frozenset({2}),
                add_bos=True,
                version="v3",
                efforts=None,
                takes_schema=False,
                chat_template=None,
                has_chat_format=has_chat_format,
                control=control,
            )
        )

    def pieces(self):
        return [None] * 6 + list(self.LETTERS)

    def detokenizer(self, *, continues=False):
        return PieceDetokenizer(self.pieces(), leading=LeadingSpace.KEPT if continues else self.leading)

    def piece(self, token_id):
        piece = self.pieces()[token_id]
        return piece.encode() if isinstance(piece, str) else piece

    def _encode_plain(self, text):
        return [6 + self.LETTERS.index(letter) for letter in text]

    _encode_after = _spell = _encode_plain


class Scripted:
    """A sampler that returns a fixed list of ids."""

    seed = 0

    def __init__(self, ids):
        self.ids = list(ids)

    def __call__(self, logits, history):
        return self.ids.pop(0)


def on_evaluation(monkeypatch, see):
    """Call ``see(ids, cache)`` whenever a model evaluates `ids`, at once or block by block."""
    for place, name in ((Mistral, "_at_once"), (Decoder, "__call__")):
        monkeypatch.setattr(place, name, _seen(getattr(place, name), see))


def _seen(evaluate, see):
    def seen(self, ids, cache, *args, **options):
        see(ids, cache[0] if isinstance(cache[0], list) else cache)  # the caches of several texts, or of one
        return evaluate(self, ids, cache, *args, **options)

    return seen
