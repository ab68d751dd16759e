"""Walks through a grammar of llguidance, byte by byte."""

from random import Random

import numpy as np
from llguidance import LLMatcher

from mistral_mlx.constraint.limits import SCHEMA_LIMITS, byte_tokenizer

EOS = 256
CLOSING = np.frombuffer(b'"]}', np.uint8)


def matcher(grammar: str) -> LLMatcher:
    """Return a matcher at the beginning of a text."""
    made = LLMatcher(byte_tokenizer(), grammar, log_level=0, limits=SCHEMA_LIMITS)
    assert not made.is_error(), made.get_error()[:300]
    return made


def accepts(grammar: str, text: str) -> bool:
    """Say whether a grammar allows exactly `text`."""
    one = matcher(grammar)
    raw = list(text.encode())
    return one.try_consume_tokens(raw) == len(raw) and one.is_accepting()


def walk(start: LLMatcher, rng: Random, *, patience: int = 120, limit: int = 3000) -> bytes | None:
    """Return a random text that a grammar allows, or None if it did not end within `limit` bytes.

    `start` is a matcher at the beginning and stays there. After `patience` bytes the walk takes what closes.
    """
    one = start.deep_copy()
    text = bytearray()
    generator = np.random.default_rng(rng.randrange(2**32))
    weight = rng.choice((1.0, 20.0))
    while len(text) < limit:
        assert not one.is_error(), one.get_error()[:300]
        if one.is_stopped():
            return bytes(text)
        allowed = np.unpackbits(np.frombuffer(one.compute_bitmask(), np.uint8), bitorder="little")[:257].astype(float)
        assert allowed.any() or one.is_stopped(), (bytes(text), one.get_error()[:300])
        if one.is_stopped():
            return bytes(text)
        allowed[CLOSING] *= weight
        allowed[EOS] *= weight
        if len(text) > patience:
            allowed[EOS] *= 1e9
            allowed[CLOSING] *= 1e3
        token = int(generator.choice(257, p=allowed / allowed.sum()))
        if token == EOS:
            return bytes(text)
        text.append(token)
        assert one.consume_token(token), (bytes(text), one.get_error()[:300])
    return None
