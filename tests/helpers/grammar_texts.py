"""Texts of a grammar, found with a vocabulary of single bytes."""

from functools import cache
from random import Random

from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from mistral_mlx.constraint.limits import LIMITS

END = 256


class Bytes:
    """A vocabulary of the 256 bytes, the end, and a special token."""

    eos_token_id = END
    bos_token_id = None
    tokens = (*(bytes([byte]) for byte in range(256)), b"\xff<eos>", b"\xff[INST]")
    special_token_ids = (END, END + 1)

    def __call__(self, text: bytes | str) -> list[int]:
        return list(text.encode() if isinstance(text, str) else text)


@cache
def byte_tokens() -> LLTokenizer:
    return LLTokenizer(TokenizerWrapper(Bytes()), slices=[])


def matcher(grammar: str) -> LLMatcher:
    """Return a matcher at the start of a text."""
    started = LLMatcher(byte_tokens(), grammar, log_level=0, limits=LIMITS)
    assert not started.is_error(), started.get_error()
    return started


def allowed(state: LLMatcher) -> list[int]:
    """Return the bytes that may come next, and END if the text may end here."""
    bits = int.from_bytes(state.compute_bitmask(), "little")
    assert not state.is_error(), state.get_error()
    return [token for token in range(len(Bytes.tokens)) if bits >> token & 1]


def is_text(grammar: str, text: str) -> bool:
    """Return whether a whole text is one of `grammar`."""
    return texts_of(grammar, [text]) == [text]


def texts_of(grammar: str, texts: list[str]) -> list[str]:
    """Return those of `texts` that `grammar` allows."""
    state, found = matcher(grammar), []
    for text in texts:
        raw = list(text.encode())
        if state.try_consume_tokens(raw) == len(raw) and state.is_accepting():
            found.append(text)
        assert state.reset(), state.get_error()
    return found


def random_text(grammar: str, rng: Random, *, most: int = 40) -> str | None:
    """Return a text of `grammar`, chosen at random; None if it did not end within `most` bytes."""
    state, text = matcher(grammar), bytearray()
    while len(text) < most:
        choice = allowed(state)
        assert choice, f"nothing may follow {bytes(text)!r}, and it is no text of the grammar"
        assert max(choice) <= END, f"a special token may follow {bytes(text)!r}"
        if END in choice and (len(choice) == 1 or rng.random() < 0.3):
            return text.decode()
        byte = rng.choice([byte for byte in choice if byte != END])
        text.append(byte)
        assert state.consume_token(byte), state.get_error()
    return None
