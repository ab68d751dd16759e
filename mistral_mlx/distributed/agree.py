"""What processes agree on before the first step: the model, its split, and that each has room for its share.

Rank 0 says what is wanted. Whatever keeps one of them from going on ends all of them, with a line that says whose
fault it is.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import NoReturn, TypedDict, cast

from mistral_mlx import kernels
from mistral_mlx.errors import GroupError, MistralMLXError
from mistral_mlx.kernels.memory import available_memory
from mistral_mlx.model.cache import cache_nbytes
from mistral_mlx.model.cache_options import CacheOptions
from mistral_mlx.model.loading import Inspected, cache_itemsize
from mistral_mlx.model.mistral import Mistral
from mistral_mlx.version import __version__

from .group import Group, Message
from .loading import groups_of, load_share, nbytes_of, share_nbytes
from .share import Share, shares_of_blocks, shares_of_layers

N_SAMPLED = 64  # bytes at the beginning of each tensor, which tell models of one shape apart
OTHER_VERSION = "rank {} has version {} of mistral-mlx, rank 0 has {}; install the same on every machine"
OTHER_MODEL = "the model of rank {} is another one than that of rank 0; every machine needs the same folder"
OTHER_KERNELS = (
    "rank {} computes by {}, rank 0 by {}; give all of them --device cpu, and see 'mistral-mlx doctor' on each machine"
)
NO_ROOM = "rank {} needs {:.1f} GB of memory, {:.1f} GB are available; take more machines, or add --ignore-memory"
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


class Refused(GroupError):
    """Rank 0 ended, with an exit status, before it needed the model; `why` is its error, if it had one."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(f"rank 0 cannot go on: {why}", is_known=True)
        self.status, self.why = status, why


def refuse(group: Group, status: int, why: str) -> None:
    """Tell the followers, in place of what is wanted, that rank 0 ends."""
    group.message({"refused": why, "status": status})


def agreed(group: Group, model: Inspected, wanted: Wanted | None) -> tuple[Wanted, Share]:
    """Return what rank 0 wants, which the others do not know, and what this process is to have of `model`.

    Raises GroupError if a process has another model or version, computes in another way, has no room for its share, or
    cannot open the model;
    Refused if rank 0 ended; OptionError if the model cannot be split so.
    """
    group.settle()
    own = {"version": __version__, "model": digest(model), "kernels": _kernels(model)}
    said = _heard(group, None if wanted is None else {**own, "wanted": asdict(wanted)})
    memory = UNKNOWN if (available := available_memory()) is None else available
    of_all = _compare(group, _difference(group.rank, own, said), [memory])
    wanted = Wanted(**cast(WantedFields, said["wanted"])) if wanted is None else wanted
    free = [n for (n,) in of_all]
    share = split(model, group.size, wanted, [1] * group.size if UNKNOWN in free else free)[group.rank]
    needed = share_nbytes(model, share) + _cache_nbytes(model, share, wanted)
    lacks = needed > memory and not wanted.ignore_memory
    _compare(group, NO_ROOM.format(group.rank, needed / 1e9, memory / 1e9) if lacks else "", [])
    return wanted, share


def excused(group: Group, error: Exception) -> NoReturn:
    """Tell the others that this follower cannot open the model. Raises GroupError as `agreed` does on every rank."""
    _heard(group, None)
    _compare(group, f"rank {group.rank} cannot go on: {error}", [0])
    raise error


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
    except (MistralMLXError, OSError, MemoryError) as error:
        try:
            _compare(group, f"rank {group.rank} cannot load its share: {error}", [])
        except GroupError:
            if not group.leads:
                raise
        raise error
    _compare(group, "", [])
    return own


def digest(model: Inspected) -> str:
    """Return a SHA-256 digest of the hyper-parameters and of the names, shapes and first bytes of all tensors."""
    hashed = hashlib.sha256(json.dumps(asdict(model.args), sort_keys=True, default=sorted).encode())
    for name, entry in sorted(model.entries.items()):
        hashed.update(json.dumps([name, entry.dtype, entry.shape]).encode() + entry.first_bytes(N_SAMPLED))
    return hashed.hexdigest()


def _heard(group: Group, message: Message | None) -> Message:
    """Return what rank 0 says before anything else. Raises Refused if it ends."""
    said = group.message(message)
    if "refused" in said:
        raise Refused(cast(int, said["status"]), cast(str, said["refused"]))
    return said


def _difference(rank: int, own: Message, said: Message) -> str:
    if said.get("version") != own["version"]:
        return OTHER_VERSION.format(rank, own["version"], said.get("version"))
    if said["model"] != own["model"]:
        return OTHER_MODEL.format(rank)
    return OTHER_KERNELS.format(rank, own["kernels"], said["kernels"]) if said["kernels"] != own["kernels"] else ""


def _compare(group: Group, fault: str, numbers: Sequence[int]) -> list[list[int]]:
    """Return the numbers of every rank if none has a fault. Raises GroupError, on every rank, with the first one."""
    of_all = group.gather([bool(fault), *numbers])
    if any(found for found, *_ in of_all):
        group.is_over = True
        raise GroupError(next(filter(None, group.texts(fault))), is_known=True)
    return [others for _, *others in of_all]


def _kernels(model: Inspected) -> str:
    """Return what computes here. Others use other dtypes, and sums of other sizes.

    Each process chooses the experts of a mixture by itself, and has to come to the same ones: to the same last bits.
    """
    if model.args.n_experts:
        return kernels.names().partition(",")[0]
    return "the compiled kernels" if kernels.uses_native() else "NumPy" if kernels.on_cpu() else "a GPU"


def _cache_nbytes(model: Inspected, share: Share, wanted: Wanted) -> int:
    return cache_nbytes(share.args, wanted.n_tokens, itemsize=cache_itemsize(model.entries))
