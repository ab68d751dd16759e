"""A tokenizer from a `tokenizer.json`, through the tokenizers library.

The library finds added tokens in any text that it encodes. So it gets the vocabulary without them: text cannot produce
a token that the library does not know. Padding, truncation and dropout are off. Components that would make it fail
later are refused by name first.
"""

import json
from collections.abc import Mapping

from tokenizers import Tokenizer as Backend
from tokenizers.models import BPE

from mistral_mlx.errors import TokenizerError, shown

from .base import Tokenizer, make_traits
from .detokenizer import (
    REPLACEMENT,
    SPACE,
    ByteLevelDetokenizer,
    LazyTable,
    LeadingSpace,
    PieceDetokenizer,
    StreamingDetokenizer,
    byte_level_alphabet,
    byte_of_piece,
)
from .document import (
    added_tokens,
    bpe_model,
    check_components,
    control_tokens,
    decoder_kind,
    forgets_a_space,
    leading_special,
    merges_of,
    version_of,
    vocabulary_of,
)
from .settings import TokenizerSettings
from .tekken import TEKKEN_PATTERN
from .versions import Efforts

# Some exported tokenizer.json files have another pattern than the tekken.json that they were made from.
TEKKEN_PRE_TOKENIZER = {
    "type": "Sequence",
    "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": TEKKEN_PATTERN}, "behavior": "Isolated", "invert": False},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
    ],
}
# A token of our own. A text after it is encoded like a text after any control token.
ANCHOR = "\ufdd0anchor\ufdd1"


class HuggingFaceTokenizer(Tokenizer):
    """Byte-level and sentencepiece-like BPE vocabularies."""

    def __init__(self, document: dict[str, object], settings: TokenizerSettings) -> None:
        check_components(document)
        model = bpe_model(document)
        self._ids = vocabulary_of(model)
        added, special = added_tokens(document)
        unknown = model.get("unk_token")
        control = control_tokens(self._ids, added, special - {unknown}, settings)
        kind, self.leading = decoder_kind(document.get("decoder"))
        self._is_byte_level, self._has_byte_pieces = kind == "ByteLevel", "ByteFallback" in kind
        first = leading_special(document.get("post_processor"), control)
        version = version_of(control, settings.chat_template, is_byte_level=self._is_byte_level)
        super().__init__(
            make_traits(
                settings,
                vocab_size=1 + max([*self._ids.values(), *added.values()], default=-1),
                control=control,
                own_bos=first,
                own_eos=None,
                add_bos=first is not None,
                version=version,
                efforts=Efforts() if version == "v15" else None,
            )
        )
        self._forgets_a_space = forgets_a_space(document, self._ids, control)
        self._texts = {i: text for text, i in (self._ids | added).items() if text not in control and text != unknown}
        self._byte_of = byte_level_alphabet()
        self._character_of = {byte: character for character, byte in self._byte_of.items()}
        is_tekken = self._is_byte_level and control.get("[INST]") == 3 and control.get("[/INST]") == 4
        self._backend = _backend(document, model, self._ids | added, control, is_tekken=is_tekken)

    def detokenizer(self, *, continues: bool = False) -> StreamingDetokenizer:
        if self._is_byte_level:
            return ByteLevelDetokenizer(LazyTable(self.vocab_size, self._bytes_of))
        pieces = LazyTable(self.vocab_size, self._piece_of)
        return PieceDetokenizer(pieces, leading=LeadingSpace.KEPT if continues else self.leading)

    def piece(self, token_id: int) -> bytes | None:
        piece = self._bytes_of(token_id) if self._is_byte_level else self._piece_of(token_id)
        return piece.encode() if isinstance(piece, str) else piece

    def _encode_plain(self, text: str) -> list[int]:
        if self._forgets_a_space and text.startswith((" ", SPACE)):
            text = SPACE + text
        return _encoded(self._backend, text)

    def _encode_after(self, text: str) -> list[int]:
        return _encoded(self._backend, text, anchor=ANCHOR)[1:]

    def _spell(self, text: str) -> list[int]:
        if self._is_byte_level:
            characters = [self._character_of[byte] for byte in text.encode()]
            return [self._ids[character] for character in characters if character in self._ids]
        ids: list[int] = []
        for character in text.replace(" ", SPACE):
            spelled = [character] if character in self._ids else [f"<0x{byte:02X}>" for byte in character.encode()]
            ids += [self._ids[piece] for piece in spelled if piece in self._ids]
        return ids

    def _bytes_of(self, token_id: int) -> bytes | None:
        text = self._texts.get(token_id)
        if text is None:
            return None
        try:
            return bytes(map(self._byte_of.__getitem__, text))
        except KeyError:  # an added token is plain text
            return text.encode()

    def _piece_of(self, token_id: int) -> str | bytes | None:
        text = self._texts.get(token_id)
        if text is None:
            return None
        byte = byte_of_piece(text) if self._has_byte_pieces else None
        return text.replace(SPACE, " ") if byte is None else byte


def _backend(
    document: Mapping[str, object],
    model: Mapping[str, object],
    vocabulary: Mapping[str, int],
    control: Mapping[str, int],
    *,
    is_tekken: bool,
) -> Backend:
    """Return the object of the tokenizers library that encodes plain text.

    The library's own reader takes three times as long for a model as making it of Python's lists, so it gets the rest
    of the document, with a model that has the blank tokens alone.
    """
    blank = {text: i for text, i in vocabulary.items() if text.isspace() and text not in control}
    entries, own = document.get("added_tokens"), model["vocab"]
    assert isinstance(own, dict), type(own)
    plain = dict(document) | {
        "model": {"type": "BPE", "vocab": blank, "merges": []},
        "added_tokens": [entry for entry in entries if entry["content"] in blank] if isinstance(entries, list) else [],
        "post_processor": None,
        "truncation": None,
        "padding": None,
    }
    if is_tekken:
        plain["pre_tokenizer"] = TEKKEN_PRE_TOKENIZER
    parts = dict(model) | {"vocab": {**own, **blank}, "merges": merges_of(model)}
    try:
        backend = Backend.from_str(json.dumps(plain))
        backend.model = BPE(**parts)  # type: ignore[arg-type]  # `bpe_model` has checked them
        backend.add_special_tokens([ANCHOR])
    except BaseException as error:  # a panic of the library is not an Exception
        raise _translated(error, "tokenizer.json cannot be used") from error
    _encoded(backend, "a")
    return backend


def _encoded(backend: Backend, text: str, *, anchor: str = "") -> list[int]:
    if ANCHOR in text:  # a text must not produce this token either
        text = text.replace(ANCHOR, REPLACEMENT + ANCHOR[1:])
    try:
        return backend.encode(anchor + text, add_special_tokens=False).ids
    except BaseException as error:
        raise _translated(error, "tokenizer.json cannot encode a text") from error


def _translated(error: BaseException, what: str) -> BaseException:
    if isinstance(error, KeyboardInterrupt | SystemExit | MemoryError):
        return error
    return TokenizerError(f"{what}: {shown(str(error), limit=160)}")
