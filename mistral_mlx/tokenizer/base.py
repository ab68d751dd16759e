"""The interface of every tokenizer; each file format has a subclass.

:meth:`Tokenizer.encode` never returns a control id, whatever the text.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mistral_mlx.errors import TokenizerError, shown

from .detokenizer import LeadingSpace, StreamingDetokenizer, join_stream
from .settings import TokenizerSettings
from .versions import SCHEMA_SETTING, Efforts


@dataclass(frozen=True)
class TokenizerTraits:
    """The properties of a tokenizer, without its vocabulary."""

    vocab_size: int
    bos_id: int | None
    eos_id: int | None  # ends a turn
    eos_ids: frozenset[int]  # all ids that the tokenizer files call eos
    add_bos: bool  # whether a text prompt begins with bos_id
    version: str | None  # one of VERSIONS: the chat format that the vocabulary was made for
    efforts: Efforts | None  # of reasoning, where the chat format has a setting for it
    takes_schema: bool  # whether the chat format has a setting for the JSON Schema of the answer
    chat_template: str | None
    has_chat_format: bool
    control: Mapping[str, int]  # the text of a control token -> its id


class Tokenizer(ABC):
    """Encodes text into ids and decodes ids into text.

    `control` holds the tokens that steer the model (<s>, [INST], <|im_end|>). They have no text in a decoded answer,
    and encoding a text never produces them. The version is "v1" for every sentencepiece-like vocabulary without
    [INST], because Mistral's first vocabulary cannot be told from Llama's.
    """

    leading = LeadingSpace.KEPT  # which spaces before the text of an answer are removed

    def __init__(self, traits: TokenizerTraits) -> None:
        self.vocab_size = traits.vocab_size
        self.bos_id = traits.bos_id
        self.eos_id = traits.eos_id
        self.eos_ids = traits.eos_ids
        self.add_bos = traits.add_bos
        self.version = traits.version
        self.efforts = traits.efforts
        self.takes_schema = traits.takes_schema
        self.chat_template = traits.chat_template
        self.has_chat_format = traits.has_chat_format
        self.control = traits.control
        self._control_text = {token_id: text for text, token_id in traits.control.items()}

    def encode(self, text: str, *, bos: bool = False) -> list[int]:
        """Return the ids of plain `text`: never a control id, and the bos id only with `bos`.

        A lone surrogate (undecodable input leaves one in a string) counts as U+FFFD.
        Raises TokenizerError if `bos` is true and the vocabulary has no bos token.
        """
        if bos and self.bos_id is None:
            raise TokenizerError("this tokenizer has no token for the beginning of a text; encode without bos")
        ids = self._without_control(self._encode_plain(_valid_unicode(text)))
        return ids if self.bos_id is None or not bos else [self.bos_id, *ids]

    def encode_after_control(self, text: str) -> list[int]:
        """Return the ids of plain `text` after a control token; some tokenizers add no space there."""
        return self._without_control(self._encode_after(_valid_unicode(text)))

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids`; control tokens and ids past the vocabulary have no text."""
        return join_stream(self.detokenizer(), ids)

    def rows_needed(self) -> int:
        """Return the number of embedding rows that all ids need, except those of control tokens.

        Fine-tunes add a [PAD] past the last row, which is never used.
        """
        control = set(self.control.values())
        return next((i + 1 for i in reversed(range(self.vocab_size)) if i not in control), 0)

    @abstractmethod
    def detokenizer(self, *, continues: bool = False) -> StreamingDetokenizer:
        """Return a new stream; one that `continues` a text keeps its leading space."""

    @abstractmethod
    def piece(self, token_id: int) -> bytes | None:
        """Return the bytes that an id below `vocab_size` stands for within a text; None for no text."""

    @abstractmethod
    def _encode_plain(self, text: str) -> list[int]: ...

    @abstractmethod
    def _encode_after(self, text: str) -> list[int]: ...

    @abstractmethod
    def _spell(self, text: str) -> list[int]:
        """Return the ids of the characters and bytes of `text`, without merges and added tokens."""

    def _without_control(self, ids: list[int]) -> list[int]:
        """Spell control ids as characters: some vocabularies have a control token as plain text."""
        if self._control_text.keys().isdisjoint(ids):
            return ids
        plain: list[int] = []
        for token_id in ids:
            plain += self._spell(self._control_text[token_id]) if token_id in self._control_text else [token_id]
        if not self._control_text.keys().isdisjoint(plain):
            culprit = next(token_id for token_id in plain if token_id in self._control_text)
            raise TokenizerError(
                f"a text with {shown(self._control_text[culprit])} would become a control token; leave it out"
            )
        return plain


def make_traits(
    settings: TokenizerSettings,
    *,
    vocab_size: int,
    control: Mapping[str, int],
    own_bos: int | None,
    own_eos: int | None,
    add_bos: bool,
    version: str | None,
    efforts: Efforts | None = None,
    takes_schema: bool = False,
) -> TokenizerTraits:
    """Return the traits, from the settings if they have them, else from the vocabulary file."""
    bos_id = own_bos if settings.bos is None else _lookup(settings.bos, control, "bos_token")
    eos_id = own_eos if settings.eos is None else _lookup(settings.eos, control, "eos_token")
    template = settings.chat_template
    return TokenizerTraits(
        vocab_size=vocab_size,
        bos_id=bos_id,
        eos_id=eos_id,
        eos_ids=frozenset(token_id for token_id in (eos_id, own_eos) if token_id is not None),
        add_bos=bos_id is not None and (add_bos if settings.add_bos is None else settings.add_bos),
        version=version,
        efforts=efforts,
        takes_schema=takes_schema or (version == "v15" and SCHEMA_SETTING in (template or "")),
        chat_template=template,
        has_chat_format=template is not None or (not settings.has_config and version not in (None, "v1")),
        control=control,
    )


def _lookup(text: str, control: Mapping[str, int], key: str) -> int:
    if text not in control:
        raise TokenizerError(f"{key} is {shown(text)}, which is not in the vocabulary; correct tokenizer_config.json")
    return control[text]


def _valid_unicode(text: str) -> str:
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
