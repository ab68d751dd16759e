"""The vocabulary of a model as llguidance needs it: the bytes of each id, from our own tables.

A tokenizer file is untrusted, so the library's own readers never see one. Control tokens have no bytes that a text can
spell. At the beginning of an answer some tokenizers remove a blank, so the first id has a table of its own.
"""

from collections.abc import Callable, Collection, Sequence
from functools import cached_property, lru_cache

import numpy as np
from llguidance import LLTokenizer, TokenizerWrapper
from numpy.typing import NDArray

from mistral_mlx.tokenizer.base import Tokenizer
from mistral_mlx.tokenizer.detokenizer import LeadingSpace

ANCHOR = "\x02"  # begins no token but its own: behind it, a text is encoded as within a text


class Vocabulary:
    """The ids of a tokenizer, up to the `n_rows` of the model's head; an answer may end with one of `stop_ids`."""

    def __init__(self, tokenizer: Tokenizer, n_rows: int, stop_ids: Collection[int]) -> None:
        self.n_rows = n_rows
        self.stop_ids = np.array(sorted(i for i in stop_ids if i < n_rows), np.int64)
        self._tokenizer = tokenizer
        self._control = [i for i in tokenizer.control.values() if i < n_rows]

    @cached_property
    def spells_all(self) -> bool:
        """Whether every byte has an id of its own, wherever it stands."""
        return len(self._of_byte) == 256 == len(self._of_byte_first)

    @cached_property
    def within(self) -> LLTokenizer:
        """The ids as they stand within an answer."""
        return self._built(self._pieces, self.encode)

    @cached_property
    def first(self) -> LLTokenizer:
        """The ids as they stand at the beginning of an answer."""
        if self._tokenizer.leading is LeadingSpace.KEPT:
            return self.within
        return self._built(self._pieces_first, self._encode_first)

    @cached_property
    def blank_first(self) -> NDArray[np.int64]:
        """The ids that are no text at the beginning of an answer, because their blank is removed."""
        pairs = zip(self._pieces, self._pieces_first, strict=True)
        return np.array([i for i, (within, first) in enumerate(pairs) if within and not first], np.int64)

    def bytes_of(self, token: int) -> bytes:
        """Return the bytes of an id within an answer; none for one without a text."""
        return self._pieces[token]

    def bytes_first(self, token: int) -> bytes:
        """Return the bytes of an id at the beginning of an answer."""
        return self._pieces_first[token]

    def encode(self, text: str) -> list[int]:
        """Return the ids that the tokenizer has for `text` within a text, or those of its bytes."""
        data = text.encode("utf-8", "replace")
        try:
            ids = self._tokenizer.encode(ANCHOR + data.decode())
        except Exception:  # llguidance aborts the process on an exception
            ids = []
        behind = next((i + 1 for i, token in enumerate(ids) if self._piece(token) == ANCHOR.encode()), len(ids))
        found = ids[behind:]
        return found if b"".join(map(self._piece, found)) == data else self._spelled(self._of_byte, data)

    def _encode_first(self, text: str) -> list[int]:
        """Return ids for `text` at the beginning, the first of them as the tokenizer has it; nobody asks for others."""
        data = text.encode("utf-8", "replace")
        try:
            ids = self._tokenizer.encode(text)[:1]
        except Exception:
            ids = []
        begin = b"".join(map(self.bytes_first, ids))
        if not begin or not data.startswith(begin):
            ids, begin = [], b""
        return [*ids, *self._spelled(self._of_byte_first, data[len(begin) :])]

    @cached_property
    def _pieces(self) -> list[bytes]:
        size = min(self._tokenizer.vocab_size, self.n_rows)
        pieces = [self._tokenizer.piece(i) or b"" for i in range(size)] + [b""] * (self.n_rows - size)
        for token in self._control:
            pieces[token] = b""
        return pieces

    @cached_property
    def _pieces_first(self) -> list[bytes]:
        if self._tokenizer.leading is LeadingSpace.KEPT:
            return self._pieces
        decode = self._tokenizer.decode
        return [decode([i]).encode() if b" " in piece else piece for i, piece in enumerate(self._pieces)]

    @cached_property
    def _of_byte(self) -> dict[bytes, int]:
        return {piece: i for i, piece in enumerate(self._pieces) if len(piece) == 1}

    @cached_property
    def _of_byte_first(self) -> dict[bytes, int]:
        if self._pieces_first is self._pieces:
            return self._of_byte
        return {piece: i for i, piece in enumerate(self._pieces_first) if len(piece) == 1}

    def _spelled(self, of_byte: dict[bytes, int], data: bytes) -> list[int]:
        """Return an id for each byte, and a stop id for one that has none: llguidance takes no ids for no bytes."""
        return [of_byte.get(bytes([byte]), int(self.stop_ids[0])) for byte in data]

    def _piece(self, token: int) -> bytes:
        return self._pieces[token] if token < len(self._pieces) else b""

    def _built(self, pieces: Sequence[bytes], encode: Callable[[str], list[int]]) -> LLTokenizer:
        spelled = list(pieces)
        special = sorted({*self._control, *self.stop_ids.tolist()})
        for token in special:
            spelled[token] = b"[%d]" % token  # marked as special: no text matches it
        ends = self.stop_ids.tolist()
        wrapper = TokenizerWrapper(_Backend(spelled, special, ends[0], encode))
        return LLTokenizer(wrapper, n_vocab=self.n_rows, eos_token=ends, slices=LLTokenizer.json_slices())


class _Backend:
    """What llguidance asks of a tokenizer."""

    bos_token_id = None

    def __init__(
        self, tokens: list[bytes], special: list[int], eos_id: int, encode: Callable[[str], list[int]]
    ) -> None:
        self.tokens, self.special_token_ids, self.eos_token_id = tokens, special, eos_id
        self._encode = encode

    def __call__(self, text: str) -> list[int]:
        return self._encode(text)


@lru_cache(maxsize=2)
def vocabulary(tokenizer: Tokenizer, n_rows: int, stop_ids: frozenset[int]) -> Vocabulary:
    """Return the vocabulary of a tokenizer, which is made once."""
    return Vocabulary(tokenizer, n_rows, stop_ids)
