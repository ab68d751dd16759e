"""States of a cache to go back to: a ring overwrites what it held long ago, so what it was is kept beside it.

Knows nothing of messages. Which ids a state holds decides what it is good for.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx

from mistral_mlx.model.cache import RollingBufferCache

MAX_SNAPSHOT_BYTES = 1 << 30  # two turns of a 7B with a window of 4096 and a cache of 16 bits
MIN_KEPT = 64  # tokens: a shorter beginning is not worth a file


@dataclass(frozen=True)
class Snapshot:
    """A cache and the ids in it. Its arrays are shared with the cache it was made from until that is written to."""

    ids: tuple[int, ...]
    cache: tuple[RollingBufferCache, ...]

    @property
    def nbytes(self) -> int:
        most = max(layer.nbytes for layer in self.cache)  # also of a layer that another process has
        return sum(layer.nbytes or most for layer in self.cache)

    def n_reusable(self, ids: Sequence[int]) -> int:
        """Return how many of `ids` need not be evaluated again."""
        return n_reusable(self.ids, self.cache, ids)

    def copied(self) -> list[RollingBufferCache]:
        return [layer.copy() for layer in self.cache]


class Snapshots:
    """The newest snapshots that fit into `max_nbytes` together."""

    def __init__(self, max_nbytes: int) -> None:
        self.max_nbytes = max_nbytes
        self.kept: list[Snapshot] = []  # oldest first

    def add(self, ids: Sequence[int], cache: Sequence[RollingBufferCache]) -> None:
        """Keep the state of `cache`, which holds `ids`, in place of any other with these ids."""
        new = Snapshot(tuple(ids), tuple(layer.copy() for layer in cache))
        if new.nbytes > self.max_nbytes:
            return  # one that cannot be kept shall not cost those that are
        mx.eval([array for layer in new.cache for array in (layer.keys, layer.values)])
        kept = [*(old for old in self.kept if old.ids != new.ids), new]
        while sum(snapshot.nbytes for snapshot in kept) > self.max_nbytes:
            del kept[0]
        self.kept = kept

    def best(self, ids: Sequence[int]) -> Snapshot | None:
        """Return the one that saves most of evaluating `ids`; None if there is none."""
        return max(self.kept, key=lambda snapshot: snapshot.n_reusable(ids), default=None)

    def keep_prefixes_of(self, ids: Sequence[int]) -> None:
        """Drop those that hold anything but a beginning of `ids`."""
        self.kept = [old for old in self.kept if n_common(old.ids, ids) == len(old.ids)]

    def clear(self) -> None:
        self.kept = []


def n_reusable(held: Sequence[int], cache: Sequence[RollingBufferCache], ids: Sequence[int]) -> int:
    """Return how many of `ids` a cache that holds the ids `held` can keep: none if a ring cannot go back so far."""
    n = n_common(held, ids)
    return n if n == len(held) or all(layer.can_trim(len(held) - n) for layer in cache) else 0


def n_common(a: Sequence[int], b: Sequence[int]) -> int:
    """Return the length of what both begin with."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
