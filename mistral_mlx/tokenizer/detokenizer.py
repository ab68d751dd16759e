"""Token ids to text, one id at a time.

The chunks of a stream join to exactly what decoding all ids at once gives, and no chunk ends inside a UTF-8
sequence: bytes wait until their character is complete, and bytes that never form one become U+FFFD. The text of ids
that a limit cut off is the decoded text without the beginning of a character at its end. Two families of vocabularies
exist:

- *pieces* (sentencepiece): text with ``▁`` for a space, and single bytes for what the vocabulary cannot spell. Each
  byte of a broken sequence becomes one U+FFFD, as in sentencepiece. The dummy space before the first piece is removed,
  unless the text continues a prompt.
- *byte level* (GPT-2): every token is a string of bytes. A broken sequence becomes one U+FFFD, as in the tokenizers
  library.
"""

import codecs
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Generic, Protocol, TypeVar

REPLACEMENT = "\ufffd"
SPACE = "▁"  # U+2581, how sentencepiece writes a space

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Table(Protocol[T_co]):
    """What each id stands for, by id."""

    def __len__(self) -> int: ...

    def __getitem__(self, token_id: int, /) -> T_co: ...


class LazyTable(Generic[T]):
    """A table whose entries are made when they are asked for: a text has few of them, and an answer waits for none."""

    def __init__(self, size: int, entry: Callable[[int], T]) -> None:
        self._size, self._entry = size, entry

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, token_id: int, /) -> T:
        return self._entry(token_id)


class StreamingDetokenizer(ABC):
    """Turns ids into text as they arrive; the work per id does not grow with the length of the text."""

    @abstractmethod
    def add(self, token_id: int) -> str:
        """Return the text that is certain after `token_id`; an id without text gives an empty string."""

    @abstractmethod
    def flush(self, *, cut: bool = False) -> str:
        """Return the text that is still held back at the end.

        The beginning of a character becomes U+FFFD; if more ids would follow, but the text was `cut` here, it is
        dropped.
        """

    @abstractmethod
    def bytes_of(self, token_id: int) -> bytes | None:
        """Return the bytes of one id, which may be a part of a character; None for an id without text."""


class LeadingSpace(Enum):
    """Which spaces before the text are removed."""

    KEPT = "kept"
    FIRST_PIECE = "first piece"  # sentencepiece: one leading space of the first piece, if it has one
    UNTIL_TEXT = "until text"  # sentencepiece without extra whitespace: one of every piece before the first text
    ONE = "one"  # the Strip decoder: one of the text, whichever token it came from
    FIRST_TOKEN = "first token"  # the Metaspace decoder: all spaces of the first token


class PieceDetokenizer(StreamingDetokenizer):
    """For vocabularies of pieces with ``▁`` for a space and single bytes as the fallback.

    `pieces[id]` is the text of a piece (``▁`` already a space), the byte of a byte piece, or None for no text;
    pieces in `verbatim` (the unknown one) never lose a leading space.
    """

    def __init__(
        self, pieces: Table[str | bytes | None], *, leading: LeadingSpace, verbatim: frozenset[int] = frozenset()
    ) -> None:
        self._pieces = pieces
        self._leading = leading
        self._verbatim = verbatim
        self._pending = bytearray()  # at most three bytes: the beginning of one character

    def add(self, token_id: int) -> str:
        piece = self._pieces[token_id] if 0 <= token_id < len(self._pieces) else None
        if piece is None:
            return ""
        if isinstance(piece, bytes):
            self._pending += piece
            return self._with_leading_rule(self._take_characters(), is_piece=False)
        held_back = self._with_leading_rule(self.flush(), is_piece=False)
        return held_back + self._with_leading_rule(piece, is_piece=token_id not in self._verbatim)

    def flush(self, *, cut: bool = False) -> str:
        if cut:
            del self._pending[_n_complete(self._pending) :]
        return self._take_characters(final=True)

    def bytes_of(self, token_id: int) -> bytes | None:
        piece = self._pieces[token_id] if 0 <= token_id < len(self._pieces) else None
        return piece.encode() if isinstance(piece, str) else piece

    def _take_characters(self, *, final: bool = False) -> str:
        """Remove and return the complete characters; with `final`, everything."""
        text = ""
        while self._pending and (final or len(self._pending) >= _utf8_length(self._pending[0])):
            length = _utf8_length(self._pending[0])
            try:
                text += self._pending[:length].decode()
            except UnicodeDecodeError:
                text, length = text + REPLACEMENT, 1
            del self._pending[:length]
        return text

    def _with_leading_rule(self, text: str, *, is_piece: bool) -> str:
        rule = self._leading
        if rule is LeadingSpace.KEPT or not (text or self._pending or is_piece):
            return text
        if rule is LeadingSpace.ONE:
            if text:
                self._leading = LeadingSpace.KEPT
            return text.removeprefix(" ")
        if is_piece:
            text = text.replace(" ", "") if rule is LeadingSpace.FIRST_TOKEN else text.removeprefix(" ")
        if rule is not LeadingSpace.UNTIL_TEXT or text or self._pending:
            self._leading = LeadingSpace.KEPT
        return text


class ByteLevelDetokenizer(StreamingDetokenizer):
    """For vocabularies whose tokens are strings of bytes; `tokens[id]` is None for no text."""

    def __init__(self, tokens: Table[bytes | None]) -> None:
        self._tokens = tokens
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def add(self, token_id: int) -> str:
        token = self.bytes_of(token_id)
        return "" if token is None else self._decoder.decode(token)

    def flush(self, *, cut: bool = False) -> str:
        text = "" if cut else self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return text

    def bytes_of(self, token_id: int) -> bytes | None:
        return self._tokens[token_id] if 0 <= token_id < len(self._tokens) else None


def join_stream(detokenizer: StreamingDetokenizer, ids: Iterable[int]) -> str:
    """Return the whole text of `ids`."""
    return "".join([*map(detokenizer.add, ids), detokenizer.flush()])


def byte_level_alphabet() -> dict[str, int]:
    """Return the byte of each character of a byte-level vocabulary (GPT-2's bytes_to_unicode, inverted)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(256 + rank): byte for rank, byte in enumerate(others)}


def byte_of_piece(text: str) -> bytes | None:
    """Return the byte of a piece like <0x0A>, None for any other piece."""
    if len(text) != 6 or not text.startswith("<0x") or text[5] != ">":
        return None
    try:
        return bytes([int(text[3:5], 16)])
    except ValueError:
        return None


def _n_complete(data: bytes | bytearray) -> int:
    """Return how many of the bytes come before the beginning of a character at the end."""
    for start in range(max(0, len(data) - 3), len(data)):
        try:
            data[start:].decode()
        except UnicodeDecodeError as error:
            if error.start == 0 and error.reason == "unexpected end of data":
                return start
    return len(data)


def _utf8_length(lead: int) -> int:
    """Return the number of bytes of a character with the first byte `lead`; 1 if none begins with it."""
    if 0xC2 <= lead < 0xE0:
        return 2
    if 0xE0 <= lead < 0xF0:
        return 3
    return 4 if 0xF0 <= lead < 0xF5 else 1
