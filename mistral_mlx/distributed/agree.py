"""What processes agree on before the first step: the model, its split, and that each has room for its share.

Rank 0 says what is wanted. Whatever keeps one of them from going on ends all of them, with a line that says whose
fault it is.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TypedDict, cast

from mistral_mlx.errors import GroupError, MistralMLXError
from mistral_mlx.kernels.memory import available_memory
from mistral_mlx.model.cache import cache_nbytes
from mistral_mlx.model.cache_options import CacheOptions
from mistral_mlx.model.loading import Inspected, cache_itemsize
from mistral_mlx.model.mistral import Mistral
from mistral_mlx.version import __version__

from .group import Group
from .loading import groups_of, load_share, nbytes_of, share_nbytes
from .share import Share, shares_of_blocks, shares_of_layers

N_SAMPLED = 64  # bytes at the beginning of each tensor, which tell models of one shape apart
OTHER_VERSION, OTHER_MODEL, NO_ROOM, NOT_LOADED = 1, 2, 3, 4  # why a process cannot go on
UNKNOWN = 1 << 50  # memory, where the system does not say


class WantedFields(TypedDict):
    """A message that says what is wanted."""

    pipeline: bool
    window: int | None
    sinks: int
    kv_bits: int
    exact: bool
    n_tokens: int
    ignore_memory: bool


@dataclass(frozen=True)
class Wanted:
    """What the user of rank 0 asked for."""

    pipeline: bool = False  # whole layers for each process, and not a share of every layer
    window: int | None = None
    sinks: int = 0
    kv_bits: int = 16
    exact: bool = False
    n_tokens: int = 0  # that a cache has to have room for
    ignore_memory: bool = False

    @property
    def cache(self) -> CacheOptions:
        """The part of it that concerns caches."""
        return CacheOptions(self.window, self.sinks, self.kv_bits)


def refuse(group: Group, error: MistralMLXError) -> None:
    """Tell the followers, in place of what is wanted, that rank 0 cannot go on."""
    group.message({"refused": str(error)})


def agreed(group: Group, model: Inspected, wanted: Wanted | None) -> tuple[Wanted, Share]:
    """Return what rank 0 wants, which the others do not know, and what this process is to have of `model`.

    Raises GroupError if a process has another model or version, or no room for its share; OptionError if the model
    cannot be split so.
    """
    own = {"version": __version__, "model": digest(model)}
    said = group.message(None if wanted is None else {**own, "wanted": asdict(wanted)})
    if "refused" in said:
        raise GroupError(f"rank 0 cannot go on: {said['refused']}", is_known=True)
    fault = OTHER_VERSION if said["version"] != own["version"] else OTHER_MODEL if said["model"] != own["model"] else 0
    memory = UNKNOWN if (available := available_memory()) is None else available
    of_all = _compare(group, fault, [memory])
    wanted = Wanted(**cast(WantedFields, said["wanted"])) if wanted is None else wanted
    share = split(model, group.size, wanted, [free for (free,) in of_all])[group.rank]
    needed = share_nbytes(model, share) + _cache_nbytes(model, share, wanted)
    _compare(group, NO_ROOM if needed > memory and not wanted.ignore_memory else 0, [needed, memory])
    return wanted, share


def split(model: Inspected, size: int, wanted: Wanted, memory: Sequence[int]) -> list[Share]:
    """Return the shares of `size` processes with so much memory each. Raises OptionError if they cannot be made."""
    args = wanted.cache.applied(model.args)
    if wanted.pipeline:
        return shares_of_layers(args, memory, *nbytes_of(model))
    return shares_of_blocks(args, size, groups_of(model))


def loaded(group: Group, model: Inspected, share: Share) -> Mistral:
    """Return the modules of a share when every process has loaded its own.

    Raises ModelError if this one cannot, GroupError if another cannot.
    """
    try:
        own = load_share(model, share)
    except (MistralMLXError, MemoryError):
        _compare(group, NOT_LOADED, [], is_mine=True)
        raise
    _compare(group, 0, [])
    return own


def digest(model: Inspected) -> str:
    """Return a SHA-256 digest of the hyper-parameters and of the names, shapes and first bytes of all tensors."""
    hashed = hashlib.sha256(json.dumps(asdict(model.args), sort_keys=True, default=sorted).encode())
    for name, entry in sorted(model.entries.items()):
        hashed.update(json.dumps([name, entry.dtype, entry.shape]).encode() + entry.first_bytes(N_SAMPLED))
    return hashed.hexdigest()


def _compare(group: Group, fault: int, numbers: Sequence[int], *, is_mine: bool = False) -> list[list[int]]:
    """Return the numbers of every rank if none has a fault. Raises GroupError, on every rank, unless it `is_mine`."""
    of_all = group.gather([fault, *numbers])
    for rank, (found, *others) in enumerate(of_all):
        if found and not is_mine:
            raise GroupError(_TEXTS[found](rank, others), is_known=True)
    return [others for _, *others in of_all]


def _cache_nbytes(model: Inspected, share: Share, wanted: Wanted) -> int:
    return cache_nbytes(share.args, wanted.n_tokens, itemsize=cache_itemsize(model.entries))


def _gigabytes(n: int) -> str:
    return f"{n / 1e9:.1f} GB"


_TEXTS: dict[int, Callable[[int, Sequence[int]], str]] = {
    OTHER_VERSION: lambda rank, _: (
        f"rank {rank} has another version of mistral-mlx than rank 0; install the same on every machine"
    ),
    OTHER_MODEL: lambda rank, _: (
        f"the model of rank {rank} is another one than that of rank 0; every machine needs the same folder"
    ),
    NO_ROOM: lambda rank, numbers: (
        f"rank {rank} needs {_gigabytes(numbers[0])} of memory, {_gigabytes(numbers[1])} are available; take more "
        "machines, or add --ignore-memory"
    ),
    NOT_LOADED: lambda rank, _: f"rank {rank} could not load its share of the model; it says why",
}
