"""A tokenizer from a sentencepiece file, `tokenizer.model`."""

from collections.abc import Mapping

from sentencepiece import SentencePieceProcessor, set_min_log_level

from mistral_mlx.errors import TokenizerError, shown

from .base import Tokenizer, make_traits
from .detokenizer import SPACE, LeadingSpace, PieceDetokenizer, byte_of_piece
from .settings import TokenizerSettings
from .versions import Efforts, instruct_version

FATAL = 3  # the library also logs to the terminal what it raises


def load_processor(model_proto: bytes, *, name: str) -> SentencePieceProcessor:
    """Return the processor of a sentencepiece model. Raises TokenizerError if it is damaged."""
    if not model_proto:
        raise TokenizerError(f"{shown(name)} is empty; download it again")
    set_min_log_level(FATAL)
    try:
        processor = SentencePieceProcessor(model_proto=model_proto)
        processor.encode("a")
        for token_id in (processor.unk_id(), *range(processor.get_piece_size())):
            processor.id_to_piece(token_id)
            processor.decode([token_id])
    except (RuntimeError, ValueError, TypeError, OSError, LookupError) as error:
        raise TokenizerError(
            f"{shown(name)} is damaged or not a sentencepiece model: {shown(str(error))}; download it again"
        ) from error
    return processor


class SentencePieceTokenizer(Tokenizer):
    """Mistral's v1, v2, v3 and v7 vocabularies, and all others that sentencepiece reads."""

    def __init__(self, processor: SentencePieceProcessor, settings: TokenizerSettings) -> None:
        self._processor = processor
        count = int(processor.get_piece_size())
        pieces = list(processor.id_to_piece(list(range(count))))
        control = {piece: i for i, piece in enumerate(pieces) if processor.is_control(i)}
        version = instruct_version(control) or "v1"
        control |= _added_control(processor, settings, pieces)
        own_bos, own_eos = int(processor.bos_id()), int(processor.eos_id())
        super().__init__(
            make_traits(
                settings,
                vocab_size=max([count, *(token_id + 1 for token_id in settings.added_tokens.values())]),
                control=control,
                own_bos=own_bos if own_bos >= 0 else None,
                own_eos=own_eos if own_eos >= 0 else None,
                add_bos=True,
                version=version,
                efforts=Efforts() if version == "v15" else None,
            )
        )
        self._ids = {piece: i for i, piece in enumerate(pieces) if i not in self._control_text}
        self._pieces = self._decoded(pieces, settings.added_tokens)
        self.leading = self._leading_space()

    def detokenizer(self, *, continues: bool = False) -> PieceDetokenizer:
        leading = LeadingSpace.KEPT if continues else self.leading
        return PieceDetokenizer(self._pieces, leading=leading, verbatim=frozenset({int(self._processor.unk_id())}))

    def piece(self, token_id: int) -> bytes | None:
        piece = self._pieces[token_id]
        return piece.encode() if isinstance(piece, str) else piece

    def _encode_plain(self, text: str) -> list[int]:
        ids: list[int] = self._processor.encode(text)
        return ids

    def _encode_after(self, text: str) -> list[int]:
        return self._encode_plain(text)  # Mistral encodes message by message, so every text gets its dummy space

    def _spell(self, text: str) -> list[int]:
        ids: list[int] = []
        for character in text.replace(" ", SPACE):
            if character in self._ids:
                ids.append(self._ids[character])
            else:
                ids += [self._ids.get(f"<0x{byte:02X}>", int(self._processor.unk_id())) for byte in character.encode()]
        return ids

    def _decoded(self, pieces: list[str], added: Mapping[str, int]) -> list[str | bytes | None]:
        table: list[str | bytes | None] = [piece.replace(SPACE, " ") for piece in pieces]
        for token_id in range(len(pieces)):
            if self._processor.is_byte(token_id):
                table[token_id] = byte_of_piece(pieces[token_id])
        unknown = int(self._processor.unk_id())
        table[unknown] = self._processor.decode([unknown])
        table += [None] * (self.vocab_size - len(table))
        for text, token_id in added.items():
            if token_id >= len(pieces):
                table[token_id] = text
        for token_id in self._control_text:
            table[token_id] = None
        return table

    def _leading_space(self) -> LeadingSpace:
        """Return the rule for a leading space, found by examples: Python cannot read the settings."""
        space = self._ids.get(SPACE)
        if space is None or self._processor.decode([space]) != "":
            return LeadingSpace.KEPT
        return LeadingSpace.FIRST_PIECE if self._processor.decode([space, space]) else LeadingSpace.UNTIL_TEXT


def _added_control(processor: SentencePieceProcessor, settings: TokenizerSettings, pieces: list[str]) -> dict[str, int]:
    """Return the added tokens that are special, in the chat template, bos or eos.

    User-defined pieces of the model count as added, because sentencepiece finds them in plain text.
    """
    template = settings.chat_template or ""
    named = {settings.bos, settings.eos}
    added = {pieces[i]: i for i in user_defined(processor.serialized_model_proto())}
    added |= settings.added_tokens
    written = {text for text in added if text.strip() and text in template}
    found = {text: i for text, i in added.items() if text in settings.special | named | written}
    found |= {text: i for i, text in enumerate(pieces) if text in named}
    ordinary = {i for i in range(len(pieces)) if processor.is_byte(i) or processor.is_unknown(i)}
    return {text: i for text, i in found.items() if i not in ordinary}


def user_defined(model_proto: bytes) -> list[int]:
    """Return the ids of user-defined pieces; sentencepiece has no call for this type.

    A serialized model begins with its pieces: tag 0x0A, length, then {1: text, 2: score, 3: type}. If the type is not
    the normal one, it is the last field, with tag 0x18; 4 means user-defined.
    """
    found, at, token_id = [], 0, 0
    while at < len(model_proto) and model_proto[at] == 0x0A:
        nbytes, at = _varint(model_proto, at + 1)
        at += nbytes
        if model_proto[at - 2 : at] == b"\x18\x04":
            found.append(token_id)
        token_id += 1
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the number at `at`, seven bits per byte, low bits first, and the position after it."""
    value = shift = 0
    while data[at] >= 0x80:
        value, shift, at = value | (data[at] & 0x7F) << shift, shift + 7, at + 1
    return value | data[at] << shift, at + 1
