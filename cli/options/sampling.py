"""The options of sampling, which `complete` and `chat` share, and the sampler they make."""

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from mistral_mlx.errors import OptionError, shown

from . import shared

if TYPE_CHECKING:
    from mistral_mlx.sampling.sampler import Sampler

NO_BREAKERS = "none"

# Parameter: its type and its default. The defaults are the engine's; a test holds them equal.
OPTIONS: dict[str, tuple[Any, object]] = {
    "temperature": (shared.Temperature, shared.TEMPERATURE),
    "top_p": (shared.TopP, shared.TOP_P),
    "top_k": (shared.TopK, shared.TOP_K),
    "min_p": (shared.MinP, shared.MIN_P),
    "typical_p": (
        Annotated[
            float,
            shared.sampling_option(
                metavar="P", help="Keep the tokens of most typical surprise that together reach P; 1 is off."
            ),
        ],
        1.0,
    ),
    "xtc_probability": (
        Annotated[
            float, shared.sampling_option(metavar="P", help="How often XTC leaves out the likeliest tokens; 0 is off.")
        ],
        0.0,
    ),
    "xtc_threshold": (
        Annotated[
            float,
            shared.sampling_option(metavar="P", help="XTC: of the tokens at least this likely the last one stays."),
        ],
        0.1,
    ),
    "repetition_penalty": (shared.RepetitionPenalty, shared.REPETITION_PENALTY),
    "repetition_context_size": (
        Annotated[
            int,
            shared.sampling_option(
                "--repetition-context-size",
                "--repeat-last-n",
                metavar="N",
                help="How far back the three penalties look; -1 is everything.",
            ),
        ],
        64,
    ),
    "presence_penalty": (
        Annotated[
            float,
            shared.sampling_option(metavar="X", help="Taken from the logit of a token that was there; 0 is off."),
        ],
        0.0,
    ),
    "frequency_penalty": (
        Annotated[
            float, shared.sampling_option(metavar="X", help="The same, for each time that it was there; 0 is off.")
        ],
        0.0,
    ),
    "logit_bias": (
        Annotated[
            list[str] | None,
            shared.sampling_option(
                metavar="ID(+/-)BIAS", help="Added to the logit of a token, as 1234-2.5 or 1234-inf; may be repeated."
            ),
        ],
        None,
    ),
    "dry_multiplier": (
        Annotated[
            float,
            shared.sampling_option(metavar="X", help="Weight of the penalty for repeating a whole sequence; 0 is off."),
        ],
        0.0,
    ),
    "dry_base": (
        Annotated[
            float, shared.sampling_option(metavar="X", help="DRY: how the penalty grows with each token repeated.")
        ],
        1.75,
    ),
    "dry_allowed_length": (
        Annotated[
            int, shared.sampling_option(metavar="N", help="DRY: how many tokens may be repeated for the weight alone.")
        ],
        2,
    ),
    "dry_penalty_last_n": (
        Annotated[int, shared.sampling_option(metavar="N", help="DRY: how far back it looks; -1 is everything.")],
        -1,
    ),
    "dry_sequence_breaker": (
        Annotated[
            list[str] | None,
            shared.sampling_option(
                metavar="TEXT",
                help="DRY: no repetition reaches over this; may be repeated. By default line feed, colon, quote and "
                "asterisk; 'none' is none.",
            ),
        ],
        None,
    ),
    "seed": (shared.Seed, None),
}

Command = TypeVar("Command", bound=Callable[..., None])


def with_sampling(command: Command) -> Command:
    """Give a command that takes ``**sampling`` the options above in its place."""
    signature = inspect.signature(command)
    own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, (annotation, default) in OPTIONS.items()
    ]
    own = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own]
    command.__signature__ = signature.replace(parameters=[*own, *added])  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in (*own, *added)} | {"return": None}
    return command


def make_sampler(**sampling: Any) -> "Sampler":
    """Return the sampler for the values of the options. Raises OptionError for one that cannot be."""
    from mistral_mlx.sampling.sampler import Sampler

    return Sampler(**sampler_settings(**sampling))


def sampler_settings(
    *, logit_bias: Sequence[str] | None, dry_sequence_breaker: Sequence[str] | None, **others: Any
) -> dict[str, Any]:
    """Return what a Sampler takes for the values of the options. Raises OptionError for what cannot be read."""
    if dry_sequence_breaker:
        breakers = [] if NO_BREAKERS in dry_sequence_breaker else list(dry_sequence_breaker)
        others = {**others, "dry_sequence_breakers": breakers}
    return {**others, "logit_bias": dict(map(_bias, logit_bias or []))}


def _bias(text: str) -> tuple[int, float]:
    """Return the id and the bias of a text like 1234+2.5."""
    digits = text[: len(text) - len(text.lstrip("0123456789"))]
    rest = text[len(digits) :]
    try:
        if rest[:1] not in ("+", "-"):
            raise ValueError
        return int(digits), float(rest)
    except ValueError:
        raise OptionError(f"--logit-bias is {shown(text)}; write TOKEN_ID(+/-)BIAS, as 1234-2.5 or 1234-inf") from None
