"""What every tokenizer is to the rest of the engine; knows no file format.

The one promise kept here: :meth:`Tokenizer.encode` never yields a control id, whatever the text.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mistral_mlx.errors import TokenizerError, shown

from .detokenizer import StreamingDetokenizer, join_stream
from .settings import TokenizerSettings


@dataclass(frozen=True)
class TokenizerTraits:
    """What a tokenizer is, apart from its vocabulary."""

    vocab_size: int
    bos_id: int | None
    eos_id: int | None  # the one that ends a turn
    eos_ids: frozenset[int]  # everything the tokenizer files call eos
    add_bos: bool  # whether a text prompt gets bos_id in front
    version: str | None  # "v1" | "v2" | "v3" | "v7": the instruct format the vocabulary was made for
    chat_template: str | None
    has_chat_format: bool
    control: Mapping[str, int]  # the text of a control token -> its id


class Tokenizer(ABC):
    """Text to ids and back.

    `control` holds the tokens that steer the model (<s>, [INST], <|im_end|>): they have no text in a decoded answer,
    and only ids put there on purpose are ever them. Version "v1" is said of every sentencepiece-like vocabulary
    without [INST], as Mistral's first one cannot be told from Llama's.
    """

    def __init__(self, traits: TokenizerTraits) -> None:
        self.vocab_size = traits.vocab_size
        self.bos_id = traits.bos_id
        self.eos_id = traits.eos_id
        self.eos_ids = traits.eos_ids
        self.add_bos = traits.add_bos
        self.version = traits.version
        self.chat_template = traits.chat_template
        self.has_chat_format = traits.has_chat_format
        self.control = traits.control
        self._control_text = {token_id: text for text, token_id in traits.control.items()}

    def encode(self, text: str, *, bos: bool = False) -> list[int]:
        """Return the ids of `text` as plain text: never a control id, and bos only where it is asked for.

        A lone surrogate, which is what undecodable input leaves in a string, counts as U+FFFD.
        Raises TokenizerError if `bos` is asked for and the vocabulary has none.
        """
        if bos and self.bos_id is None:
            raise TokenizerError("this tokenizer has no token for the beginning of a text; encode without bos")
        ids = self._without_control(self._encode_plain(_valid_unicode(text)))
        return ids if self.bos_id is None or not bos else [self.bos_id, *ids]

    def encode_after_control(self, text: str) -> list[int]:
        """Return the ids of a plain `text` that stands behind a control token, where some do not add a space."""
        return self._without_control(self._encode_behind(_valid_unicode(text)))

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids`; control tokens, and ids past the vocabulary, have none."""
        return join_stream(self.detokenizer(), ids)

    def rows_needed(self) -> int:
        """Return how many rows an embedding must have for every id but those of control tokens.

        Fine-tunes add a [PAD] behind the last row, which is never used.
        """
        control = set(self.control.values())
        return next((i + 1 for i in reversed(range(self.vocab_size)) if i not in control), 0)

    @abstractmethod
    def detokenizer(self, *, continues: bool = False) -> StreamingDetokenizer:
        """Return a new stream; one that `continues` a text keeps the space its first piece starts with."""

    @abstractmethod
    def _encode_plain(self, text: str) -> list[int]: ...

    @abstractmethod
    def _encode_behind(self, text: str) -> list[int]: ...

    @abstractmethod
    def _spell(self, text: str) -> list[int]:
        """Return `text` in single characters and bytes: the ids no merge and no added token can get at."""

    def _without_control(self, ids: list[int]) -> list[int]:
        """The last guard: vocabularies exist where a piece of plain text is also a control token."""
        if self._control_text.keys().isdisjoint(ids):
            return ids
        plain: list[int] = []
        for token_id in ids:
            plain += self._spell(self._control_text[token_id]) if token_id in self._control_text else [token_id]
        if not self._control_text.keys().isdisjoint(plain):
            culprit = next(token_id for token_id in plain if token_id in self._control_text)
            raise TokenizerError(f"text with {shown(self._control_text[culprit])} cannot be told from a control token")
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
) -> TokenizerTraits:
    """Put together what the settings say and, where they do not, what the vocabulary file says."""
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
        chat_template=template,
        has_chat_format=template is not None or (not settings.has_config and version in ("v2", "v3", "v7")),
        control=control,
    )


def instruct_version(control: Iterable[str]) -> str | None:
    """Tell the instruct format from the control tokens of a vocabulary, never from the name of its file."""
    texts = set(control)
    if not {"[INST]", "[/INST]"} <= texts:
        return None
    if {"[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"} <= texts:
        return "v7"
    return "v3" if texts & {"[PREFIX]", "[IMG]"} else "v2"


def _lookup(text: str, control: Mapping[str, int], key: str) -> int:
    if text not in control:
        raise TokenizerError(f"{key} is {shown(text)}, which is not in the vocabulary; correct tokenizer_config.json")
    return control[text]


def _valid_unicode(text: str) -> str:
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
