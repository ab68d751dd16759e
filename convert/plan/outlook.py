"""What the usual choices would take on the disk and in memory, before one is made; reads headers alone."""

from collections.abc import Iterator
from dataclasses import dataclass

from mistral_mlx.convert.sources.source import Source
from mistral_mlx.errors import MistralMLXError
from mistral_mlx.kernels.dtypes import MLX_DTYPES
from mistral_mlx.model.cache import cache_nbytes

from .choice import make_choice
from .plan import make_plan

N_TOKENS = 4096  # the conversation whose cache is counted
CHOICES: dict[str, dict[str, object]] = {  # options, best first
    "": {},
    "--dequantize": {"dequantize": True},
    "--bits 8": {"bits": 8},
    "--bits 6": {"bits": 6},
    "--bits 5": {"bits": 5},
    "--bits 4 --group-size 32": {"bits": 4, "group_size": 32},
    "--recipe mixed_4_6": {"recipe": "mixed_4_6"},
    "--bits 4": {"bits": 4},
    "--recipe mixed_3_6": {"recipe": "mixed_3_6"},
    "--bits 3": {"bits": 3},
}


@dataclass(frozen=True)
class Outlook:
    """One choice."""

    options: str  # as they are typed; "" for none
    nbytes: int  # of the weights
    bits_per_weight: float
    memory_bytes: int  # of the weights, and of a cache of N_TOKENS


def usual_choices(source: Source, dtype: str | None = None) -> list[Outlook]:
    """Return what each of CHOICES makes of `source` in `dtype`, without those that make the same as an earlier one."""
    found: dict[int, Outlook] = {}
    for outlook in _outlooks(source, dtype):
        found.setdefault(outlook.nbytes, outlook)
    return sorted(found.values(), key=lambda outlook: -outlook.nbytes)


def _outlooks(source: Source, dtype: str | None) -> Iterator[Outlook]:
    for options, wanted in CHOICES.items():
        try:
            plan = make_plan(source, make_choice(**wanted), dtype)  # type: ignore[arg-type]
        except MistralMLXError:  # not every source takes every choice
            continue
        cache = cache_nbytes(source.args, N_TOKENS, itemsize=MLX_DTYPES["F16"].size)
        yield Outlook(options, plan.nbytes, plan.nbytes * 8 / plan.parameters, plan.nbytes + cache)
