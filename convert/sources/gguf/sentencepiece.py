"""A sentencepiece model written on the wire from its pieces; knows nothing of where they come from.

Only the fields that decide how text is cut are written (sentencepiece_model.proto): protobuf's own library would be
a dependency for a format of three nested messages.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
BPE = 2


@dataclass(frozen=True)
class Piece:
    """One entry of the vocabulary; its place in the list is its id."""

    text: str
    score: float
    kind: int  # NORMAL ... BYTE


@dataclass(frozen=True)
class SpecialIds:
    """The ids that a sentencepiece model names; None where there is none."""

    unk: int | None
    bos: int | None
    eos: int | None
    pad: int | None


def sentencepiece_model(pieces: Sequence[Piece], special: SpecialIds, *, dummy_prefix: bool) -> bytes:
    """Return the bytes of a ``tokenizer.model`` of type BPE with `pieces`.

    `dummy_prefix` says whether a space is put before the text, as Llama's and Mistral's tokenizers do.
    """
    vocabulary = [_bytes(1, _bytes(1, p.text.encode()) + _float(2, p.score) + _number(3, p.kind)) for p in pieces]
    trainer = _number(3, BPE) + _number(4, len(pieces)) + _number(35, any(p.kind == BYTE for p in pieces))
    for place, token_id in enumerate((special.unk, special.bos, special.eos, special.pad)):
        trainer += _number(40 + place, -1 if token_id is None else token_id)
        if token_id is not None:
            trainer += _bytes(45 + place, pieces[token_id].text.encode())
    normalizer = _bytes(1, b"identity") + _number(3, dummy_prefix) + _number(4, False) + _number(5, True)
    return b"".join(vocabulary) + _bytes(2, trainer) + _bytes(3, normalizer)


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1  # negative numbers are written as 64 bits in two's complement
    parts = []
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _float(field: int, value: float) -> bytes:
    return _varint(field << 3 | 5) + struct.pack("<f", value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value
