"""Gives a command the options of sampling, which are the fields of SamplingOptions."""

import inspect
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from mistral_mlx.sampling.knobs import Knob, knobs
from mistral_mlx.sampling.options import SamplingOptions

from .shared import sampling_option

Command = TypeVar("Command", bound=Callable[..., None])


def with_sampling(command: Command) -> Command:
    """Give a command that takes ``**sampling`` the options of sampling in its place."""
    signature = inspect.signature(command)
    own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    own = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own]
    added = [_parameter(option) for option in knobs(SamplingOptions).values()]
    command.__signature__ = signature.replace(parameters=[*own, *added])  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in (*own, *added)} | {"return": None}
    return command


def _parameter(option: Knob) -> inspect.Parameter:
    is_texts = option.kind is list
    kind: Any = list[str] | None if is_texts else option.kind | None if option.optional else option.kind
    annotation = Annotated[kind, sampling_option(*option.flags, metavar=option.metavar, help=option.help)]
    default = None if is_texts else option.default
    return inspect.Parameter(option.key, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
