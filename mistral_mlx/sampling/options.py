"""The options of sampling. Each is one field; its filter, if it has one, is in `filters.FILTERS`.

The command line, the settings of a chat, prompt templates, batch lines and the docs are derived from these fields.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mistral_mlx.errors import OptionError, shown

from .knobs import Texts, knob, knobs

MAX_SEED = 2**63 - 1
DRY_SEQUENCE_BREAKERS = ("\n", ":", '"', "*")  # llama.cpp's
NO_BREAKERS = "none"  # how users write an empty list of them


def _read_biases(texts: Sequence[str]) -> dict[int, float]:
    """Return the ids and biases of texts like 1234+2.5."""
    biases = {}
    for text in texts:
        digits = text[: len(text) - len(text.lstrip("0123456789"))]
        rest = text[len(digits) :]
        try:
            if rest[:1] not in ("+", "-"):
                raise ValueError
            biases[int(digits)] = float(rest)
        except ValueError:
            raise OptionError(
                f"logit_bias is {shown(text)}; write TOKEN_ID(+/-)BIAS, as 1234-2.5 or 1234-inf"
            ) from None
    return biases


def _spell_biases(biases: object) -> list[str] | None:
    pairs = biases.items() if isinstance(biases, Mapping) else ()
    return [f"{token}{float(bias):+}".removesuffix(".0") for token, bias in pairs] or None


def _read_breakers(texts: Sequence[str]) -> tuple[str, ...]:
    return () if NO_BREAKERS in texts else tuple(texts) or DRY_SEQUENCE_BREAKERS


def _spell_breakers(breakers: object) -> list[str] | None:
    texts = tuple(breakers) if isinstance(breakers, Sequence) else ()
    return None if texts == DRY_SEQUENCE_BREAKERS else list(texts) or [NO_BREAKERS]


@dataclass(frozen=True)
class SamplingOptions:
    """How a token is chosen. Raises OptionError if a value is out of range.

    With `temperature` 0 the likeliest token is taken. The penalties look back on `repetition_context_size` tokens, the
    prompt included, DRY on `dry_penalty_last_n`. `seed` None draws one.
    """

    temperature: float = knob(0.7, "T", "0 always takes the likeliest token; 1 is the model's own", least=0)
    top_p: float = knob(0.95, "P", "Keep the likeliest tokens that together reach P", off=1, above=0, at_most=1)
    top_k: int = knob(0, "K", "Keep the K likeliest tokens", off=0, least=0)
    top_n_sigma: float = knob(
        0.0, "N", "Keep tokens whose logit is at most N standard deviations below the highest", off=0, least=0
    )
    min_p: float = knob(0.0, "P", "Keep tokens at least P times as likely as the first", off=0, least=0, at_most=1)
    typical_p: float = knob(
        1.0, "P", "Keep the tokens of most typical surprise that together reach P", off=1, above=0, at_most=1
    )
    xtc_probability: float = knob(0.0, "P", "How often XTC leaves out the likeliest tokens", off=0, least=0, at_most=1)
    xtc_threshold: float = knob(
        0.1, "P", "XTC: remove tokens at least this likely, but keep the least likely of them", above=0, at_most=1
    )
    repetition_penalty: float = knob(1.0, "X", "Above 1, tokens that have occurred become less likely", off=1, above=0)
    repetition_context_size: int = knob(
        64,  # as llama.cpp and ollama do
        "N",
        "How far back the three penalties look; -1 is everything",
        least=-1,
        flags=("--repetition-context-size", "--repeat-last-n"),
    )
    presence_penalty: float = knob(0.0, "X", "Subtract X from the logit of a token that has occurred", off=0)
    frequency_penalty: float = knob(
        0.0, "X", "Subtract X from the logit of a token for every time it has occurred", off=0
    )
    logit_bias: Mapping[int, float] | None = knob(
        None,
        "ID(+/-)BIAS",
        "Added to the logit of a token, as 1234-2.5 or 1234-inf; may be repeated",
        texts=Texts(_read_biases, _spell_biases),
    )
    dry_multiplier: float = knob(0.0, "X", "Weight of the penalty for repeating a whole sequence", off=0, least=0)
    dry_base: float = knob(1.75, "X", "DRY: how the penalty grows with each token repeated", least=1)
    dry_allowed_length: int = knob(2, "N", "DRY: how many tokens may be repeated for the weight alone", least=0)
    dry_penalty_last_n: int = knob(-1, "N", "DRY: how far back it looks; -1 is everything", least=-1)
    dry_sequence_breakers: Sequence[str] = knob(
        DRY_SEQUENCE_BREAKERS,
        "TEXT",
        "DRY: no repetition reaches over this; may be repeated. By default line feed, colon, quote and asterisk; "
        "'none' is none",
        flags=("--dry-sequence-breaker",),
        texts=Texts(_read_breakers, _spell_breakers),
    )
    seed: int | None = knob(None, "N", "Makes sampling repeatable; random by default", least=0, at_most=MAX_SEED)

    def __post_init__(self) -> None:
        for option in knobs(type(self)).values():
            option.check(getattr(self, option.name))
        for token, bias in (self.logit_bias or {}).items():
            if not bias < math.inf:
                raise OptionError(
                    f"logit_bias of token {token} is {bias}; it must be a number, or -inf to ban the token"
                )
        if "" in self.dry_sequence_breakers:
            raise OptionError("a dry_sequence_breaker is empty; give at least one character")

    def uses(self, name: str) -> bool:
        """Whether the option `name` has another value than the one that changes nothing."""
        return bool(getattr(self, name) != knobs(type(self))[name].off)
