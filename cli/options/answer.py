"""What decides an answer: sampling, the limit, and where it ends; from the command line, a template or a batch line."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mistral_mlx.errors import OptionError, shown
from mistral_mlx.generation.drafts import MAX_DRAFT
from mistral_mlx.sampling.knobs import knob, knobs
from mistral_mlx.sampling.options import SamplingOptions


@dataclass(frozen=True)
class AnswerKnobs(SamplingOptions):
    """The options of sampling, and those that end an answer. Raises OptionError if a value is out of range."""

    max_tokens: int = knob(2048, least=1)
    stop: Sequence[str] = knob(())
    reasoning_effort: str = knob("")  # the model's own
    draft: int = knob(MAX_DRAFT, least=0, at_most=MAX_DRAFT)

    def __post_init__(self) -> None:
        super().__post_init__()
        if "" in self.stop:
            raise OptionError("a stop string is empty; give at least one character")


def read_values(options: type, values: Mapping[str, object], place: str, *, also: Iterable[str] = ()) -> dict[str, Any]:
    """Return the fields of `options` that a file sets. Raises OptionError, naming `place`, for a wrong one.

    The error lists the keys that the place may have: those of `options`, and `also` others, which come first.
    """
    known = knobs(options)
    for key in values:
        if key not in known:
            raise OptionError(f"{place} sets {shown(key)}, which is none of {', '.join([*also, *sorted(known)])}")
    try:
        return from_plain(options, values)
    except OptionError as error:
        raise OptionError(f"{place}: {error}") from error


def from_plain(options: type, values: Mapping[str, object]) -> dict[str, Any]:
    """Return the fields of `options` by name, for values by key as users write them. Raises OptionError."""
    known = knobs(options)
    return {known[key].name: known[key].from_plain(value) for key, value in values.items()}
